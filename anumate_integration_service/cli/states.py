"""`services drain|maintenance|enable|why`: what an operator wants of a service or an instance, and what comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete, times
from anumate_integration_service.cli.command import Talk, connected, path
from anumate_integration_service.cli.errors import Failure
from anumate_integration_service.cli.options import For, Reason, Until

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The service.", show_default=False, autocompletion=complete.services)
]
Instance = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="One instance; else the whole service.",
        show_default=False,
        autocompletion=complete.instances,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Put the four commands into `services`."""
    app.command()(drain)
    app.command()(maintenance)
    app.command()(enable)
    app.command()(why)


@connected
def drain(
    talk: Talk, name: Name, instance: Instance = "", reason: Reason = "", lasting: For = "", until: Until = ""
) -> None:
    """Send no new requests; those that run may end."""
    _want(talk, "draining", name, instance, reason, times.end(lasting, until, datetime.now(UTC)))


@connected
def maintenance(
    talk: Talk, name: Name, instance: Instance = "", reason: Reason = "", lasting: For = "", until: Until = ""
) -> None:
    """Send no requests, and alert nobody."""
    _want(talk, "maintenance", name, instance, reason, times.end(lasting, until, datetime.now(UTC)))


@connected
def enable(talk: Talk, name: Name, instance: Instance = "", reason: Reason = "") -> None:
    """Send requests again."""
    _want(talk, "enabled", name, instance, reason, None)


def _want(talk: Talk, state: str, name: str, instance: str, reason: str, ends: str | None) -> None:
    if not instance:
        _refuse_unknown(talk, name)
    place = path("services", name, *((instance,) if instance else ()))
    body = {"state": state, "reason": reason, "expires_at": ends}
    talk.show(talk.api.post(f"{place}/state", body), lambda answer: _wanted(answer, name, instance))


def _refuse_unknown(talk: Talk, name: str) -> None:
    """The API takes a wish for a service that will come; typed by hand it is a slip of the finger."""
    known = talk.api.get("/v1/services", service_name=name, status="any")["services"]
    if not known:
        raise Failure(f"No instance of {name} is registered.")


def _wanted(answer: Any, name: str, instance: str) -> None:
    from anumate_integration_service.cli import show

    what = f"{show.text(name)}/{show.text(instance)}" if instance else f"{show.text(name)}, every instance,"
    until = f" until {times.shown(answer['expires_at'])}" if answer["expires_at"] else ""
    because = f": {show.text(answer['reason'])}" if answer["reason"] else ""
    show.line(f"{what} is {show.word(answer['state'])}{until}{because}.")


@connected
def why(talk: Talk, name: Name, instance: Instance = "") -> None:
    """Say why an instance gets traffic or does not, and by which facts."""
    if instance:
        talk.show(talk.api.get(f"{path('services', name, instance)}/why"), _explain)
        return
    listed = talk.api.get("/v1/services", service_name=name, status="any")["services"]
    if not listed:
        raise Failure(f"No instance of {name} is registered, so that nothing can get its traffic.")
    answers = [talk.api.get(f"{path('services', name, each['instance_id'])}/why") for each in listed]
    talk.show(answers, _explain_each)


def _explain_each(answers: Any) -> None:
    for answer in answers:
        _explain(answer)


def _explain(answer: Any) -> None:
    from anumate_integration_service.cli import show

    style = "green" if answer["eligible"] else "red"
    show.line(
        f"[{style}]{'●' if answer['eligible'] else '✖'}[/] {show.text(answer['name'])}/"
        f"{show.text(answer['instance_id'])}: {show.text(answer['sentence'])}"
    )
    own = [
        ("lease", "held" if answer["live"] else "none", "", "", ""),
        ("health", answer["health"], "", "", ""),
        ("operator", answer["state"], "", "", ""),
    ]
    show.table(
        ("FACT", "WHAT IT SAYS", "SINCE", "UNTIL", "FROM"),
        ([show.text(cell) for cell in row] for row in [*own, *_facts(answer["facts"])]),
        spare=("UNTIL", "FROM", "SINCE"),
    )
    show.line("")


def _facts(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            str(fact["sentence"] or fact["value"]),
            times.shown(fact["since"]),
            times.shown(fact["expires_at"]),
            str(fact["source"] or ""),
        )
        for name, fact in sorted(facts.items())
    ]
