"""`metrics` and `version`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer

from anumate_integration_service.cli.command import Talk, connected
from anumate_integration_service.cli.options import AsJson

PACKAGE = "anumate-integration-service"


def add_to(app: typer.Typer) -> None:
    """Put both commands into the command line."""
    app.command()(metrics)
    app.command()(version)


@connected
def metrics(
    talk: Talk,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="As Prometheus reads it.")] = False,
) -> None:
    """What is counted: registry, health, breakers, gateway."""
    if prometheus and talk.as_json:
        raise typer.BadParameter("use one of --json and --prometheus", param_hint="--prometheus")
    if prometheus:
        sys.stdout.write(talk.api.get_text("/v1/metrics", "text/plain"))
    else:
        talk.show(talk.api.get("/v1/metrics"), _shown)


def version(json: AsJson = False) -> None:
    """The version of this command line."""
    from anumate_integration_service.cli import show

    try:
        own = installed(PACKAGE)
    except PackageNotFoundError:
        own = "unknown"
    if json:
        show.as_json({"version": own, "python": platform.python_version()})
    else:
        sys.stdout.write(f"anumate-integration {own} (Python {platform.python_version()})\n")


def _shown(answer: Any) -> None:
    from anumate_integration_service.cli import show

    registry, gateway = answer["registry"], answer["gateway"]
    health = ", ".join(f"{number} {status}" for status, number in answer["health"].items() if number)
    breakers = list(answer["circuit_breakers"].values())
    states = ", ".join(f"{breakers.count(state)} {state}" for state in dict.fromkeys(breakers))
    rows = [
        ("tenant", answer["tenant"]),
        ("services", registry["services"]),
        ("instances", f"{registry['instances']}, {registry['eligible_instances']} get traffic"),
        ("health", health or "nothing is checked"),
        ("breakers", states or "none"),
        ("requests", f"{gateway['requests']}, {gateway['errors']} answered with 500 and above"),
        (
            "latency",
            f"p50 {_ms(gateway['p50_seconds'])}, p95 {_ms(gateway['p95_seconds'])}, p99 {_ms(gateway['p99_seconds'])}",
        ),
    ]
    show.table(("WHAT", "NOW"), ((show.text(name), show.text(value)) for name, value in rows))
    if gateway["routes"]:
        show.line("")
        show.table(
            ("ROUTE", "SERVICE", "REQUESTS", "ERRORS", "P50", "P95", "P99"),
            (
                (
                    show.text(each["route"]),
                    show.text(each["service"]),
                    show.text(each["requests"]),
                    show.text(each["errors"]),
                    *(show.text(_ms(each[f"p{share}_seconds"])) for share in (50, 95, 99)),
                )
                for each in gateway["routes"]
            ),
            spare=("P50", "P95"),
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
