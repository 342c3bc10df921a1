"""`routes list|show|explain`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from anumate_integration_service.cli import complete
from anumate_integration_service.cli.command import Talk, connected, path
from anumate_integration_service.cli.errors import EXIT_STATUSES, FAILED

app = typer.Typer(help="Where the gateway sends requests, and why there.", epilog=EXIT_STATUSES, no_args_is_help=True)


@app.command("list")
@connected
def list_routes(talk: Talk) -> None:
    """List the routes."""
    talk.show(talk.api.get_all("/v1/routes"), _listing)


@app.command("show")
@connected
def show_route(
    talk: Talk,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The route.", show_default=False, autocompletion=complete.routes)
    ],
) -> None:
    """Show everything that is said about a route."""
    talk.show(talk.api.get(path("routes", name)), _one)


@app.command()
@connected
def explain(
    talk: Talk,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Like GET.", show_default=False)],
    address: Annotated[
        str, typer.Argument(metavar="URL", help="https://shop.example/orders?x=1, or only /orders.", show_default=False)
    ],
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", help="'Name: value', as of curl; may be repeated.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", metavar="PUBLIC-ID", help="The caller's API key: its public id will do.")
    ] = "",
    source: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Where the request comes from.")] = "",
) -> None:
    """Say which route would take a request and why the others would not; exit status 1 when none does."""
    headers = [_header(each) for each in header or []]
    body = {"method": method.upper(), "headers": headers, "key": key, "address": source, **_place(address)}
    answer = talk.api.post("/v1/routes/explain", body)
    talk.show(answer, _explained)
    if answer["route"] is None:
        raise typer.Exit(FAILED)


def _place(address: str) -> dict[str, str]:
    """Host and path of a URL; a bare path is asked of no host."""
    if address.startswith("/"):
        return {"path": address.partition("#")[0]}
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname:
        raise typer.BadParameter(f"{address!r} is no URL and no path", param_hint="URL")
    query = f"?{parts.query}" if parts.query else ""
    return {"host": parts.netloc.rpartition("@")[2], "path": (parts.path or "/") + query}


def _header(text: str) -> dict[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and name.strip()):
        raise typer.BadParameter(f"{text!r} is not 'Name: value'", param_hint="-H")
    return {"name": name.strip(), "value": value.strip()}


def _listing(answer: Any) -> None:
    from anumate_integration_service.cli import show

    if not answer["results"]:
        show.line("No routes yet: make one in the admin, over the API, or with `apply`.")
        return
    show.table(
        ("ROUTE", "HOSTS", "METHODS", "PATH", "TO", "KEY", "SERVED"),
        (
            (
                show.text(each["name"]),
                show.text(", ".join(each["hosts"]) or "any"),
                show.text(", ".join(each["methods"]) or "any"),
                show.text(f"{each['path']}{'' if each['path_type'] == 'prefix' else ' (' + each['path_type'] + ')'}"),
                show.text(_targets(each["targets"])),
                show.text("needed" if each["auth_required"] else "no"),
                show.word("enabled") if each["enabled"] else show.word("disabled"),
            )
            for each in answer["results"]
        ),
        spare=("KEY", "METHODS", "HOSTS"),
    )


def _one(route: Any) -> None:
    from anumate_integration_service.cli import show

    show.table(
        ("FIELD", "VALUE"),
        ((show.text(field), show.text(_value(field, value))) for field, value in route.items()),
    )


def _value(field: str, value: Any) -> Any:
    if field == "targets":
        return _targets(value)
    if isinstance(value, list):
        return ", ".join(f"{each['name']}={each['value']}" if isinstance(each, dict) else str(each) for each in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _targets(targets: list[dict[str, Any]]) -> str:
    if len(targets) == 1 and not targets[0].get("version"):
        return str(targets[0]["service"])
    return ", ".join(
        f"{each['service']}{' ' + each['version'] if each.get('version') else ''} (weight {each['weight']})"
        for each in targets
    )


def _destinations(destinations: list[dict[str, Any]]) -> None:
    """Where a request may end up, instance by instance."""
    from anumate_integration_service.cli import show

    rows = [(each, instance) for each in destinations if each["chosen"] for instance in each["instances"] or []]
    if rows:
        show.line("")
        show.table(
            ("INSTANCE", "VERSION", "TRAFFIC", "WHY"),
            (
                (
                    show.text(f"{each['service']}/{instance['instance_id']}"),
                    show.text(instance["version"]),
                    show.word("ok" if instance["eligible"] else "no"),
                    show.text(instance["sentence"]),
                )
                for each, instance in rows
            ),
        )
    elif destinations:
        show.line("  No instance of that is known.")


def _explained(answer: Any) -> None:
    from anumate_integration_service.cli import show

    taken = answer["route"]
    mark = show.word("ok").split(" ")[0] + "[/]" if taken else "[red]✖[/]"
    show.line(f"{mark} {show.text(taken or 'No route')}: {show.text(answer['sentence'])}")
    if taken:
        seen = f"; the service sees {answer['upstream_path']}" if answer["upstream_path"] else ""
        if answer["redirect"]:
            show.line(f"  The client is sent to {show.text(answer['redirect'])}.")
        else:
            show.line(f"  It goes to {show.text(_targets(answer['targets']))}{show.text(seen) if seen else ''}.")
        show.line(f"  {show.text(answer['admission']['sentence'])}")
        for limit in answer["rate_limits"]:
            told = f"{limit['rate']:g} requests a second by {limit['by']}, {limit['burst']} at once"
            show.line(f"  Limit {show.text(limit['name'])}: {show.text(told)}.")
        _destinations(answer["destinations"])
    if answer["verdicts"]:
        show.line("")
        show.table(
            ("ROUTE", "TAKES IT", "WHY"),
            (
                (show.text(each["route"]), "yes" if each["takes_it"] else "no", show.text(each["sentence"]))
                for each in answer["verdicts"]
            ),
        )
    for sentence in answer["skipped"]:
        show.line(f"{show.word('warning')}: {show.text(sentence)}")
