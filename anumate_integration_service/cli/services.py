"""`services list|register|deregister`; with `states`, what an operator wants of them, and `follow`, what changes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anumate_integration_service.cli import complete, follow, states
from anumate_integration_service.cli.command import Talk, connected, path
from anumate_integration_service.cli.errors import EXIT_STATUSES

app = typer.Typer(help="What is registered.", epilog=EXIT_STATUSES, no_args_is_help=True)

STATUSES = "healthy, degraded, unhealthy or unknown"


@app.command("list")
@connected
def list_services(
    talk: Talk,
    name: Annotated[str, typer.Option("--name", help="Only this service.", autocompletion=complete.services)] = "",
    status: Annotated[str, typer.Option("--status", help=f"Only {STATUSES}.")] = "",
    capability: Annotated[str, typer.Option("--capability", help="Only with this capability.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag; may be repeated.")] = None,
    version: Annotated[str, typer.Option("--version", help="Only these versions, like >=1.2,<2.")] = "",
    zone: Annotated[str, typer.Option("--zone", help="Only in this zone.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and show every change, until Ctrl-C.")] = False,
) -> None:
    """List instances, whatever their health."""
    query = {
        "service_name": name,
        "status": status or "any",
        "capability": capability,
        "tag": tag,
        "version": version,
        "zone": zone,
        # Who names a zone here filters by it; to discovery it would be a wish.
        "zone_strict": "true" if zone else "",
    }
    filtered = bool(name or status or capability or tag or version or zone)
    if watch:
        follow.as_table(talk, query, lambda answer: _listing(answer, filtered))
    else:
        talk.show(talk.api.get("/v1/services", **query), lambda answer: _print(_listing(answer, filtered)))


def _print(listing: Any) -> None:
    from anumate_integration_service.cli import show

    show.console().print(listing)


def _listing(answer: Any, filtered: bool) -> Any:
    from anumate_integration_service.cli import show

    instances = answer["services"]
    if not instances:
        return "No instances match." if filtered else "Nothing is registered yet."
    return show.laid_out(
        ("SERVICE", "INSTANCE", "STATUS", "STATE", "VERSION", "ZONE", "ENDPOINTS", "TAGS"),
        (
            (
                show.text(each["name"]),
                show.text(each["instance_id"]),
                show.word(each["status"]),
                show.word(each["state"]),
                show.text(each["version"]),
                show.text(each["zone"]),
                show.text(", ".join(_address(endpoint) for endpoint in each["endpoints"].values())),
                show.text(", ".join(each["tags"])),
            )
            for each in instances
        ),
        spare=("ENDPOINTS", "VERSION", "TAGS", "ZONE"),
    )


@app.command()
@connected
def register(
    talk: Talk,
    name: Annotated[str, typer.Option("--name", help="The service.")],
    endpoint: Annotated[
        list[str],
        typer.Option("--endpoint", help="name:protocol:host:port, like http:http:localhost:8000; repeatable."),
    ],
    capability: Annotated[list[str] | None, typer.Option("--capability", help="May be repeated.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")] = None,
    version: Annotated[str, typer.Option("--version")] = "",
    instance: Annotated[str, typer.Option("--instance", help="Its id; else one is made.")] = "",
    zone: Annotated[str, typer.Option("--zone")] = "",
    weight: Annotated[
        int | None, typer.Option("--weight", min=1, help="Its share where balancing is weighted.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", help="name=value; may be repeated.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", min=1, help="Seconds it stays without a heartbeat.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Send heartbeats until Ctrl-C, then deregister.")] = False,
) -> None:
    """Register an instance by hand."""
    body: dict[str, Any] = {
        "name": name,
        "version": version,
        "endpoints": dict(_endpoint(each) for each in endpoint),
        "capabilities": capability or [],
        "tags": tag or [],
        "metadata": dict(_pair(each) for each in metadata or []),
    }
    optional = {"instance_id": instance, "zone": zone, "weight": weight, "lease_ttl": ttl}
    body.update({field: value for field, value in optional.items() if value})
    answer = talk.api.post("/v1/services/register", body)
    talk.show(answer, lambda answer: _registered(name, answer, hold=hold))
    if hold:
        _hold(talk.api, name, answer["instance_id"], float(answer["heartbeat_interval"]))


@app.command()
@connected
def deregister(
    talk: Talk,
    name: Annotated[
        str, typer.Option("--name", help="The service.", show_default=False, autocompletion=complete.services)
    ],
    instance: Annotated[
        str,
        typer.Option("--instance", help="The instance's id.", show_default=False, autocompletion=complete.instances),
    ],
) -> None:
    """Take an instance out of the registry."""
    from anumate_integration_service.cli import show

    talk.api.delete(path("services", name, instance))
    gone = {"name": name, "instance_id": instance, "deregistered": True}
    talk.show(gone, lambda _: show.line(f"Deregistered {show.text(name)}/{show.text(instance)}."))


states.add_to(app)
follow.add_to(app)


def _registered(name: str, answer: Any, *, hold: bool) -> None:
    from anumate_integration_service.cli import show

    stay = "until Ctrl-C" if hold else f"{answer['lease_ttl']} s without a heartbeat; --hold keeps it"
    show.line(f"Registered {show.text(name)}/{show.text(answer['instance_id'])}; it stays {stay}.")


def _hold(api: Any, name: str, instance: str, interval: float) -> None:
    import time

    from anumate_integration_service.cli.errors import INTERRUPTED

    try:
        while True:
            time.sleep(interval)
            api.put(f"{path('services', name, instance)}/heartbeat")
    except KeyboardInterrupt:
        api.delete(path("services", name, instance))
        raise typer.Exit(INTERRUPTED) from None


def _endpoint(text: str) -> tuple[str, dict[str, object]]:
    """`http:http:localhost:8000`; the host may be an IPv6 address in brackets."""
    name, _, rest = text.partition(":")
    protocol, _, place = rest.partition(":")
    host, _, port = place.rpartition(":")
    if not (name and protocol and host and port.isdigit()):
        raise typer.BadParameter(f"{text!r} is not name:protocol:host:port", param_hint="--endpoint")
    return name, {"protocol": protocol, "host": host.strip("[]"), "port": int(port)}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not name=value", param_hint="--metadata")
    return name, value


def _address(endpoint: dict[str, Any]) -> str:
    host = f"[{endpoint['host']}]" if ":" in endpoint["host"] else endpoint["host"]
    return f"{endpoint['protocol']}://{host}:{endpoint['port']}"
