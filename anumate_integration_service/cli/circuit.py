"""`circuit list|reset|open|close`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete
from anumate_integration_service.cli.command import Talk, connected, one_of, path
from anumate_integration_service.cli.errors import EXIT_STATUSES
from anumate_integration_service.cli.options import Reason

app = typer.Typer(help="Circuit breakers.", epilog=EXIT_STATUSES, no_args_is_help=True)

Breaker = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The breaker; the same as --name.", show_default=False, autocompletion=complete.breakers
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--name",
        help="Its name, like my-service-circuit.",
        show_default=False,
        autocompletion=complete.breakers,
    ),
]


@app.command("list")
@connected
def list_breakers(talk: Talk) -> None:
    """List the breakers, merged over all gateway workers."""
    talk.show(talk.api.get_all("/v1/circuit-breakers"), _listing)


@app.command()
@connected
def reset(talk: Talk, breaker: Breaker = "", name: Name = "", reason: Reason = "") -> None:
    """Close a breaker, forget what it counted, and let it decide for itself."""
    _order(talk, "reset", one_of(breaker, name, "NAME", "--name"), reason, "is reset")


@app.command("open")
@connected
def hold_open(talk: Talk, breaker: Breaker = "", name: Name = "", reason: Reason = "") -> None:
    """Hold a breaker open: no request passes until it is reset."""
    _order(talk, "open", one_of(breaker, name, "NAME", "--name"), reason, "is held open until it is reset")


@app.command("close")
@connected
def hold_closed(talk: Talk, breaker: Breaker = "", name: Name = "", reason: Reason = "") -> None:
    """Hold a breaker closed: requests pass, whatever fails, until it is reset."""
    _order(talk, "close", one_of(breaker, name, "NAME", "--name"), reason, "is held closed until it is reset")


def _order(talk: Talk, action: str, name: str, reason: str, done: str) -> None:
    from anumate_integration_service.cli import show

    body = {"reason": reason} if reason else None
    answer = talk.api.post(f"{path('circuit-breakers', name)}/{action}", body)
    talk.show(answer, lambda _: show.line(f"{show.text(name)} {done}."))


def _listing(answer: Any) -> None:
    from anumate_integration_service.cli import show

    if not answer["results"]:
        show.line("No breakers yet: one appears with a service's first request through the gateway.")
        return
    show.table(
        ("BREAKER", "STATE", "CALLS", "FAILURES", "WHY"),
        (
            (
                show.text(each["name"]),
                show.word(each["state"]),
                show.text(each["calls"]),
                show.text(each["failures"]),
                show.text(_why(each)),
            )
            for each in answer["results"]
        ),
        spare=("CALLS", "FAILURES"),
    )


def _why(breaker: dict[str, Any]) -> str:
    reason = str(breaker.get("reason") or "")
    if breaker.get("forced"):
        return f"held by an operator{': ' if reason else ''}{reason}"
    return reason
