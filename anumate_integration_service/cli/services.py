"""`services list|register|deregister`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from anumate_integration_service.cli.options import DEFAULT_URL, ApiKey, AsJson, Tenant, Url

app = typer.Typer(help="What is registered.", no_args_is_help=True)

STATUSES = "healthy, degraded, unhealthy or unknown"


@app.command("list")
def list_services(
    name: Annotated[str, typer.Option("--name", help="Only this service.")] = "",
    status: Annotated[str, typer.Option("--status", help=f"Only {STATUSES}.")] = "",
    capability: Annotated[str, typer.Option("--capability", help="Only with this capability.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag; may be repeated.")] = None,
    version: Annotated[str, typer.Option("--version", help="Only these versions, like >=1.2,<2.")] = "",
    zone: Annotated[str, typer.Option("--zone", help="Only in this zone.")] = "",
    json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """List instances, whatever their health."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

    with Api(url, api_key, tenant) as api:
        answer = api.get(
            "/v1/services",
            service_name=name,
            status=status or "any",
            capability=capability,
            tag=tag,
            version=version,
            zone=zone,
        )
    if json:
        show.as_json(answer)
        return
    instances = answer["services"]
    if not instances:
        show.line("No instances match." if name or status or capability or tag else "Nothing is registered yet.")
        return
    show.table(
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
    )


@app.command()
def register(
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
    json: AsJson = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """Register an instance by hand."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

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
    with Api(url, api_key, tenant) as api:
        answer = api.post("/v1/services/register", body)
        if json:
            show.as_json(answer)
        else:
            stay = "until Ctrl-C" if hold else f"{answer['lease_ttl']} s without a heartbeat; --hold keeps it"
            show.line(f"Registered {show.text(name)}/{show.text(answer['instance_id'])}; it stays {stay}.")
        if hold:
            _hold(api, name, answer["instance_id"], float(answer["heartbeat_interval"]))


@app.command()
def deregister(
    name: Annotated[str, typer.Option("--name", help="The service.")],
    instance: Annotated[str, typer.Option("--instance", help="The instance's id.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    tenant: Tenant = "",
) -> None:
    """Take an instance out of the registry."""
    from anumate_integration_service.cli import show
    from anumate_integration_service.cli.api import Api

    with Api(url, api_key, tenant) as api:
        api.delete(_path(name, instance))
    show.line(f"Deregistered {show.text(name)}/{show.text(instance)}.")


def _hold(api: Any, name: str, instance: str, interval: float) -> None:
    import threading

    try:
        while not threading.Event().wait(interval):
            api.put(f"{_path(name, instance)}/heartbeat")
    except KeyboardInterrupt:
        api.delete(_path(name, instance))


def _path(name: str, instance: str) -> str:
    return f"/v1/services/{quote(name, safe='')}/{quote(instance, safe='')}"


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
