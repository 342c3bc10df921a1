"""`keys list|create|revoke|rotate`. A secret is printed once, and nothing else with --quiet."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from anumate_integration_service.cli import complete, times
from anumate_integration_service.cli.command import Talk, connected, path
from anumate_integration_service.cli.errors import EXIT_STATUSES, Failure
from anumate_integration_service.cli.options import For, Until

app = typer.Typer(help="API keys.", epilog=EXIT_STATUSES, no_args_is_help=True)

PublicId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Its public id, as `keys list` shows it.", show_default=False, autocompletion=complete.keys
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the secret and nothing else.")]


_KEPT: Final = ("name", "scopes", "expires_at", "routes", "networks", "rate_limit_policy")
"""What a rotated key hands on to its successor; a platform of an earlier version does not know all of it."""


@app.command("list")
@connected
def list_keys(talk: Talk, every: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False) -> None:
    """List the keys; their secrets are known to nobody."""
    talk.show(talk.api.get_all("/v1/api-keys", revoked="" if every else "false"), _listing)


@app.command()
@connected
def create(
    talk: Talk,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what for.", show_default=False)],
    scope: Annotated[list[str], typer.Option("--scope", help="What it may, like gateway:invoke; may be repeated.")],
    route: Annotated[
        list[str] | None, typer.Option("--route", help="Good for this route only; may be repeated.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", help="From there only, like 10.0.0.0/8; may be repeated.")
    ] = None,
    rate_limit_policy: Annotated[str, typer.Option("--rate-limit-policy", help="In place of the routes' own.")] = "",
    lasting: For = "",
    until: Until = "",
    quiet: Quiet = False,
) -> None:
    """Make a key and print its secret, this once."""
    ends = times.end(lasting, until, datetime.now(UTC))
    limits = {"routes": route, "networks": network, "rate_limit_policy": rate_limit_policy}
    said = {field: value for field, value in limits.items() if value}
    answer = talk.api.post("/v1/api-keys", {"name": name, "scopes": scope, "expires_at": ends, **said})
    _hand_over(talk, answer, answer, quiet=quiet)


@app.command()
@connected
def revoke(talk: Talk, public_id: PublicId) -> None:
    """End a key for good, within a second and everywhere."""
    from anumate_integration_service.cli import show

    talk.api.delete(path("api-keys", public_id))
    answer = {"public_id": public_id, "revoked": True}
    talk.show(answer, lambda _: show.line(f"{show.text(public_id)} is revoked."))


@app.command()
@connected
def rotate(
    talk: Talk,
    public_id: PublicId,
    overlap: Annotated[str, typer.Option("--overlap", help="How long the old one still works, like 1h.")] = "",
    quiet: Quiet = False,
) -> None:
    """Make a key like another one, and end that: at once, or after --overlap."""
    lapse = datetime.now(UTC) + times.span(overlap, "--overlap") if overlap else None
    old = talk.api.get(path("api-keys", public_id))
    if old["revoked_at"]:
        raise Failure(f"{public_id} was revoked; there is nothing to rotate. `keys create` makes a new one.")
    expired = times.read(old["expires_at"])
    if expired and expired <= datetime.now(UTC):
        raise Failure(f"{public_id} expired at {times.shown(old['expires_at'])}; `keys create` makes a new one.")
    new = talk.api.post("/v1/api-keys", {field: old[field] for field in _KEPT if field in old})
    try:
        ended = _end(talk, old, lapse)
    except Failure as failure:
        # The new one is made, and its secret is nowhere else.
        _hand_over(talk, new, {"created": new, "replaced": old}, quiet=quiet)
        raise Failure(f"The old key {public_id} still works: {failure}", failure.status) from None
    _hand_over(talk, new, {"created": new, "replaced": ended}, quiet=quiet)
    if not (quiet or talk.as_json):
        _say_end(ended)


def _end(talk: Talk, old: Any, lapse: datetime | None) -> Any:
    """The old key as it is afterwards. An overlap never makes it live longer than it would have."""
    address = path("api-keys", old["public_id"])
    if lapse is None:
        talk.api.delete(address)
        return talk.api.get(address) if talk.as_json and talk.api.key.split("_")[1:2] != [old["public_id"]] else old
    expires = times.read(old["expires_at"])
    if expires and expires <= lapse:
        return old
    return talk.api.patch(address, {"expires_at": lapse.isoformat()})


def _say_end(old: Any) -> None:
    from anumate_integration_service.cli import show

    until = f"works until {times.shown(old['expires_at'])}" if old["expires_at"] else "is revoked"
    show.line(f"The old one, {show.text(old['public_id'])}, {until}.")


def _hand_over(talk: Talk, key: Any, answer: Any, *, quiet: bool) -> None:
    if quiet:
        sys.stdout.write(f"{key['secret']}\n")
    else:
        talk.show(answer, lambda _: _made(key))


def _made(key: Any) -> None:
    from anumate_integration_service.cli import show

    until = times.shown(key["expires_at"]) or "for ever"
    show.line(f"Made {show.text(key['name'])}, {show.text(key['public_id'])}: {show.text(', '.join(key['scopes']))}.")
    show.line(f"It works {'until ' if key['expires_at'] else ''}{until}. Keep the secret, it is shown this once:")
    sys.stdout.write(f"{key['secret']}\n")


def _listing(answer: Any) -> None:
    from anumate_integration_service.cli import show

    if not answer["results"]:
        show.line("No keys.")
        return
    show.table(
        ("KEY", "NAME", "SCOPES", "UNTIL", "LAST USED"),
        (
            (
                show.text(each["public_id"]),
                show.text(each["name"]),
                show.text(", ".join(each["scopes"])),
                show.text(f"revoked {times.shown(each['revoked_at'])}" if each["revoked_at"] else _until(each)),
                show.text(times.shown(each["last_used_at"]) or "never"),
            )
            for each in answer["results"]
        ),
        spare=("LAST USED",),
    )


def _until(key: Any) -> str:
    return times.shown(key["expires_at"]) or "for ever"
