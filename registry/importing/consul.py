"""Consul's catalogue: entries of `/v1/catalog/service/<name>` and of `/v1/health/service/<name>`, mixed if need be.

https://developer.hashicorp.com/consul/api-docs/catalog and /health.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from registry.importing.entries import BadEntry, Found, found, mapping, service_name

SERVERS: Final = "consul"
"""The service that Consul's own servers stand under; it is nobody's to call."""
_PROTOCOLS: Final = ("https", "grpc", "tcp", "http")


def parse(document: Any) -> Iterator[Found]:
    """A list of entries, or lists by the name of the service.

    Raises:
        BadEntry: one of them is not valid.
    """
    if isinstance(document, dict):
        for name, entries in document.items():
            yield from _entries(entries, f"/{name}")
    else:
        yield from _entries(document, "")


def _entries(entries: Any, pointer: str) -> Iterator[Found]:
    if not isinstance(entries, list):
        raise BadEntry(pointer, "This is no list of catalogue entries.")
    for number, entry in enumerate(entries):
        where = f"{pointer}/{number}"
        flat = _flat(mapping(entry, where), where)
        if flat.get("ServiceName") != SERVERS:
            yield _found(flat, where)


def _flat(entry: dict[str, Any], pointer: str) -> dict[str, Any]:
    """An entry of the health endpoint as one of the catalogue's, with its checks."""
    if "Service" not in entry:
        return entry
    node = mapping(entry.get("Node") or {}, f"{pointer}/Node")
    service = mapping(entry["Service"], f"{pointer}/Service")
    names = ("ID", "Address", "Port", "Tags", "Meta", "Weights")
    return {
        "Address": node.get("Address"),
        "Datacenter": node.get("Datacenter"),
        "ServiceName": service.get("Service"),
        "Checks": entry.get("Checks"),
        **{f"Service{name}": service.get(name) for name in names},
    }


def _found(entry: Mapping[str, Any], pointer: str) -> Found:
    tags = entry.get("ServiceTags") or []
    if not isinstance(tags, list):
        raise BadEntry(f"{pointer}/ServiceTags", "This is no list.")
    meta = mapping(entry.get("ServiceMeta") or {}, f"{pointer}/ServiceMeta")
    protocol = _protocol(meta, tags)
    host = entry.get("ServiceAddress") or entry.get("Address")
    body = {
        "name": service_name(entry.get("ServiceName"), f"{pointer}/ServiceName"),
        "instance_id": entry.get("ServiceID") or entry.get("ServiceName"),
        "version": meta.get("version", ""),
        "endpoints": {protocol: {"protocol": protocol, "host": host, "port": entry.get("ServicePort")}},
        "tags": tags,
        "metadata": meta,
        "zone": meta.get("zone") or entry.get("Datacenter") or "",
        "weight": _weight(entry.get("ServiceWeights"), pointer),
    }
    return found(pointer, body, "consul", _maintenance(entry.get("Checks"), pointer))


def _protocol(meta: Mapping[str, Any], tags: list[Any]) -> str:
    """What its metadata or a tag says; Consul itself does not know."""
    said = [meta.get("protocol"), meta.get("scheme"), *tags]
    return next((protocol for protocol in _PROTOCOLS if protocol in said), "http")


def _weight(weights: Any, pointer: str) -> int:
    """Consul's 1 is our 100."""
    passing = mapping(weights or {}, f"{pointer}/ServiceWeights").get("Passing", 1)
    if isinstance(passing, bool) or not isinstance(passing, int) or passing < 0:
        raise BadEntry(f"{pointer}/ServiceWeights/Passing", "This is no weight.")
    return min(passing * 100, 65_535)


def _maintenance(checks: Any, pointer: str) -> str:
    """Maintenance mode is a check with a reserved id that is critical."""
    for number, check in enumerate(checks or ()):
        known = mapping(check, f"{pointer}/Checks/{number}")
        if str(known.get("CheckID", "")).startswith(("_node_maintenance", "_service_maintenance")):
            return str(known.get("Notes") or "Maintenance mode in Consul")[:500]
    return ""
