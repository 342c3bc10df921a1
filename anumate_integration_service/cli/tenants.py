"""`tenants list|create|deactivate`, and `activate` to take that back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete
from anumate_integration_service.cli.command import Talk, connected, path
from anumate_integration_service.cli.errors import EXIT_STATUSES

app = typer.Typer(help="Who shares this installation.", epilog=EXIT_STATUSES, no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The tenant.", show_default=False, autocompletion=complete.tenants)
]


@app.command("list")
@connected
def list_tenants(talk: Talk) -> None:
    """List the tenants that the key may see."""
    talk.show(talk.api.get_all("/v1/tenants"), _listing)


@app.command()
@connected
def create(
    talk: Talk,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A DNS label; it cannot be changed later.", show_default=False)
    ],
    title: Annotated[str, typer.Option("--title", help="What people call it.")] = "",
    host: Annotated[list[str] | None, typer.Option("--host", help="A host name of its own; may be repeated.")] = None,
) -> None:
    """Make a tenant."""
    from anumate_integration_service.cli import show

    answer = talk.api.post("/v1/tenants", {"name": name, "title": title, "hosts": host or []})
    talk.show(answer, lambda _: show.line(f"Made tenant {show.text(name)}; --tenant {show.text(name)} acts for it."))


@app.command()
@connected
def deactivate(talk: Talk, name: Name) -> None:
    """Stop a tenant: its keys and routes do nothing within a second. Nothing is deleted."""
    _set(talk, name, active=False)


@app.command()
@connected
def activate(talk: Talk, name: Name) -> None:
    """Let a tenant that was deactivated go on."""
    _set(talk, name, active=True)


def _set(talk: Talk, name: str, *, active: bool) -> None:
    from anumate_integration_service.cli import show

    answer = talk.api.patch(path("tenants", name), {"active": active})
    talk.show(answer, lambda _: show.line(f"Tenant {show.text(name)} is {'active' if active else 'not active'}."))


def _listing(answer: Any) -> None:
    from anumate_integration_service.cli import show

    show.table(
        ("TENANT", "TITLE", "ACTIVE", "HOSTS"),
        (
            (
                show.text(each["name"]),
                show.text(each["title"]),
                show.text("yes" if each["active"] else "no"),
                show.text(", ".join(each["hosts"])),
            )
            for each in answer["results"]
        ),
    )
