"""`services list --watch` and `services watch`: blocking queries, each with the index of the answer before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete
from anumate_integration_service.cli.command import Talk, connected
from anumate_integration_service.cli.errors import UNREACHABLE, Failure

WAIT = 30.0
# Between two attempts to reach a platform that is away.
PAUSE = 1.0
# Fields that say nothing of what an instance is: its lease is renewed every few seconds.
_RESTLESS = {"expires_at"}


def add_to(app: typer.Typer) -> None:
    """Put `watch` into `services`."""
    app.command()(watch)


@connected
def watch(
    talk: Talk,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Only this service.", show_default=False, autocompletion=complete.services),
    ] = "",
) -> None:
    """Say what changes, a line each, until Ctrl-C. With --json each is an object on a line of its own."""
    known: dict[tuple[str, str], Any] | None = None
    for answer in answers(talk, {"service_name": name, "status": "any"}):
        now = {(each["name"], each["instance_id"]): each for each in answer["services"]}
        if known is None:
            _say(f"Watching {len(now)} instance{'' if len(now) == 1 else 's'}; Ctrl-C ends it.")
        else:
            for change in changes(known, now):
                _print(talk, change)
        known = now


def as_table(talk: Talk, query: Mapping[str, Any], lay_out: Callable[[Any], Any]) -> None:
    """Show every answer: in place on a terminal, else one after the other."""
    from rich.live import Live

    from anumate_integration_service.cli import show

    if talk.as_json:
        for answer in answers(talk, query):
            show.as_json_line(answer)
    elif not sys.stdout.isatty():
        for answer in answers(talk, query):
            show.console().print(lay_out(answer))
            sys.stdout.flush()
    else:
        with Live(console=show.console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
            for answer in answers(talk, query):
                live.update(lay_out(answer), refresh=True)


def answers(talk: Talk, query: Mapping[str, Any]) -> Iterator[Any]:
    """The first answer at once, then one for each change. A platform that goes away meanwhile is waited for."""
    answer = talk.api.get("/v1/services", **query)
    yield answer
    away = False
    while True:
        index = answer["index"]
        try:
            answer = talk.api.wait("/v1/services", WAIT, index=index, **query)
        except Failure as failure:
            if failure.status != UNREACHABLE:
                raise
            if not away:
                _say(f"{talk.api.url} is away; waiting for it.")
            away = True
            time.sleep(PAUSE)
            continue
        if away:
            _say(f"{talk.api.url} is back.")
        away = False
        if answer["index"] != index:
            yield answer


def changes(before: Mapping[tuple[str, str], Any], now: Mapping[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    """What an answer tells that the one before did not, by service and instance."""
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old is None or new is None:
            yield {"change": "removed" if new is None else "added", "service": new or old}
        elif told := sorted(field for field in (old | new).keys() - _RESTLESS if old.get(field) != new.get(field)):
            yield {"change": "changed", "service": new, "before": {field: old.get(field) for field in told}}


def _print(talk: Talk, change: Mapping[str, Any]) -> None:
    from anumate_integration_service.cli import show

    if talk.as_json:
        show.as_json_line(change)
        return
    service = change["service"]
    show.line(
        f"{datetime.now():%H:%M:%S}  {show.text(service['name'])}/{show.text(service['instance_id'])}  "
        + ", ".join(_told(change))
    )
    sys.stdout.flush()


def _told(change: Mapping[str, Any]) -> Iterator[str]:
    from anumate_integration_service.cli import show

    service = change["service"]
    if change["change"] == "added":
        yield f"is there: {show.word(service['status'])}, {show.word(service['state'])}"
    elif change["change"] == "removed":
        yield "is gone"
    else:
        for field, before in change["before"].items():
            if field in ("status", "state"):
                yield f"{show.word(before)} → {show.word(service[field])}"
            else:
                yield f"{field} {show.text(before)} → {show.text(service[field])}"


def _say(sentence: str) -> None:
    from anumate_integration_service.cli import show

    show.note(sentence)
