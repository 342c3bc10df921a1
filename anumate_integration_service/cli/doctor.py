"""`doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from anumate_integration_service.cli.command import Talk, connected
from anumate_integration_service.cli.errors import FAILED
from anumate_integration_service.cli.options import PANEL

if TYPE_CHECKING:
    from anumate_integration_service.cli.examine import Finding

Gateway = Annotated[
    str,
    typer.Option(
        "--gateway",
        envvar="ANUMATE_GATEWAY_URL",
        help="Where the gateway is; else port 8080 of the control plane's machine.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Put `doctor` into the command line."""
    app.command()(doctor)


@connected
def doctor(talk: Talk, gateway: Gateway = "") -> None:
    """Say what is wrong with this installation and what to do; exit status 1 when there is a problem."""
    from anumate_integration_service.cli import examine, show
    from anumate_integration_service.cli.visit import visit

    findings = examine.findings(visit(talk.api, gateway))
    worst = examine.worst(findings)
    if talk.as_json:
        show.as_json({"status": worst, "findings": [each._asdict() for each in findings]})
    else:
        show.table(("STATUS", "WHAT", "HOW IT IS"), _rows(findings))
        show.line(f"\n{show.text(examine.summary(findings))}")
    if worst == examine.PROBLEM:
        raise typer.Exit(FAILED)


def _rows(findings: Iterable[Finding]) -> Iterator[tuple[str, ...]]:
    """A finding, and under it what to do."""
    from anumate_integration_service.cli import show

    for each in findings:
        yield show.word(each.status), show.text(each.about), show.text(each.sentence)
        if each.next_step:
            yield "", "", f"→ {show.text(each.next_step)}"
