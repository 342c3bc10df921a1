"""Options that every command which talks to the platform takes."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Connection"

Url = Annotated[
    str, typer.Option("--url", envvar="ANUMATE_URL", help="Where the control plane is.", rich_help_panel=PANEL)
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="ANUMATE_API_KEY",
        help="Else the file api-key in ANUMATE_HOME (.anumate).",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant",
        envvar="ANUMATE_TENANT",
        help="Act for this tenant; the key needs scope admin.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answered.")]

Reason = Annotated[str, typer.Option("--reason", help="Why; everybody who asks is told.")]
For = Annotated[str, typer.Option("--for", help="For how long, like 30m, 2h or 7d.")]
Until = Annotated[str, typer.Option("--until", help="Until when, like 2026-12-31T18:00:00Z.")]

DEFAULT_URL = "http://localhost:8090"
