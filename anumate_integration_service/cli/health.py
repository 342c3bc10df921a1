"""`health status|configure|incidents`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete, times
from anumate_integration_service.cli.command import Talk, connected
from anumate_integration_service.cli.errors import EXIT_STATUSES

app = typer.Typer(help="What is up, and why not.", epilog=EXIT_STATUSES, no_args_is_help=True)

ServiceName = Annotated[
    str, typer.Option("--name", help="Only this service.", show_default=False, autocompletion=complete.services)
]


@app.command()
@connected
def status(talk: Talk, name: ServiceName = "") -> None:
    """Every service's health, with the sentence that says why."""
    talk.show(talk.api.get("/v1/health/status", service_name=name), _status)


@app.command()
@connected
def configure(
    talk: Talk,
    name: Annotated[
        str, typer.Option("--name", help="The service.", show_default=False, autocompletion=complete.services)
    ],
    instance: Annotated[
        str,
        typer.Option("--instance", help="Only this instance; else every one.", autocompletion=complete.instances),
    ] = "",
    kind: Annotated[str, typer.Option("--type", help="http, tcp or another that the platform knows.")] = "http",
    endpoint: Annotated[str, typer.Option("--endpoint", help="The endpoint's name; else the first.")] = "",
    at: Annotated[str, typer.Option("--path", help="What an HTTP check asks for.")] = "",
    interval: Annotated[float | None, typer.Option("--interval", help="Seconds between checks.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds until a check has failed.")] = None,
    failures: Annotated[
        int | None, typer.Option("--failures", help="Failures in a row that make it unhealthy.")
    ] = None,
    successes: Annotated[
        int | None, typer.Option("--successes", help="Successes in a row that make it healthy again.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Do not make this check.")] = False,
) -> None:
    """Have a service, or one instance of it, checked in this way."""
    body: dict[str, Any] = {"service_name": name, "check_type": kind}
    optional = {
        "instance_id": instance or None,
        "endpoint": endpoint or None,
        "path": at or None,
        "interval": interval,
        "timeout": timeout,
        "failure_threshold": failures,
        "success_threshold": successes,
        "enabled": False if off else None,
    }
    body.update({field: value for field, value in optional.items() if value is not None})
    talk.show(talk.api.post("/v1/health/configure", body), _configured)


@app.command()
@connected
def incidents(
    talk: Talk,
    name: ServiceName = "",
    instance: Annotated[str, typer.Option("--instance", help="Only this instance.")] = "",
    status: Annotated[str, typer.Option("--status", help="Only unhealthy or degraded.")] = "",
    unfinished: Annotated[bool, typer.Option("--open", help="Only those that go on.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, latest first.")] = 50,
) -> None:
    """Each time an instance was unhealthy or degraded, latest first."""
    query = {"service_name": name, "instance_id": instance, "status": status, "open": "true" if unfinished else ""}
    talk.show(talk.api.get("/v1/health/incidents", page_size=limit, **query), _incidents)


def _configured(check: Any) -> None:
    from anumate_integration_service.cli import show

    whose = f"{check['service_name']}/{check['instance_id']}" if check.get("instance_id") else check["service_name"]
    if not check.get("enabled", True):
        show.line(f"{show.text(whose)} is not checked by {show.text(check['check_type'])} any more.")
        return
    asked = f" {check['path']}" if check["check_type"] == "http" else ""
    how = f"{check['check_type']}{asked} every {check['interval']:g} s, within {check['timeout']:g} s"
    show.line(f"{show.text(whose)} is checked: {show.text(how)}.")


def _incidents(answer: Any) -> None:
    from anumate_integration_service.cli import show

    if not answer["results"]:
        show.line("No incidents.")
        return
    show.table(
        ("SERVICE", "INSTANCE", "STATUS", "FROM", "UNTIL", "WHY"),
        (
            (
                show.text(each["service_name"]),
                show.text(each["instance_id"]),
                show.word(each["status"]),
                show.text(times.shown(each["started_at"])),
                show.text(times.shown(each["ended_at"]) or "now"),
                show.text(each["sentence"]),
            )
            for each in answer["results"]
        ),
        spare=("UNTIL",),
    )
    if answer["next"]:
        show.line(f"{answer['count']} in all; --limit shows more.")


def _status(answer: Any) -> None:
    from anumate_integration_service.cli import show

    counts = ", ".join(f"{count} {name}" for name, count in answer["counts"].items() if count)
    show.line(f"{show.word(answer['status'])}   {show.text(counts)}\n")
    show.table(
        ("SERVICE", "INSTANCE", "STATUS", "STATE", "WHY"),
        (
            (
                show.text(service["name"]),
                show.text(instance["instance_id"]),
                show.word(instance["status"]),
                show.word(instance["state"]),
                show.text(instance["sentence"]),
            )
            for service in answer["services"]
            for instance in service["instances"]
        ),
        spare=("STATE",),
    )
