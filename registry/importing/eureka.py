"""Eureka's `/eureka/apps` as JSON, which its server makes from XML: a number may be `{"$": 8080, "@enabled": "true"}`,
and a list of one member is that member. https://github.com/Netflix/eureka/wiki/Eureka-REST-operations
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from registry.importing.entries import BadEntry, Found, found, many, mapping, service_name

_PORTS: Final = (("port", "http", True), ("securePort", "https", False))
"""The field, our protocol, and whether it is enabled when it does not say."""


def parse(document: Any) -> Iterator[Found]:
    """Every instance of every application.

    Raises:
        BadEntry: one of them is not valid.
    """
    applications = mapping(mapping(document, "").get("applications"), "/applications")
    for number, each in enumerate(many(applications.get("application"))):
        where = f"/applications/application/{number}"
        application = mapping(each, where)
        for position, instance in enumerate(many(application.get("instance"))):
            pointer = f"{where}/instance/{position}"
            yield _found(mapping(instance, pointer), application.get("name"), pointer)


def _found(instance: Mapping[str, Any], application: Any, pointer: str) -> Found:
    # An empty map still says of which Java class it is.
    said = mapping(instance.get("metadata") or {}, f"{pointer}/metadata")
    metadata = {name: value for name, value in said.items() if not name.startswith("@")}
    host = instance.get("ipAddr") or instance.get("hostName")
    body: dict[str, Any] = {
        "name": service_name(instance.get("app") or application, f"{pointer}/app"),
        "instance_id": instance.get("instanceId") or instance.get("hostName"),
        "version": str(metadata.get("version", "")),
        "endpoints": _endpoints(instance, host, pointer),
        "tags": [],
        "metadata": metadata,
        "zone": metadata.get("zone") or _data_centre(instance).get("availability-zone") or "",
    }
    return found(pointer, body, "eureka", _maintenance(instance))


def _endpoints(instance: Mapping[str, Any], host: Any, pointer: str) -> dict[str, Any]:
    endpoints = {}
    for field, protocol, by_default in _PORTS:
        if field in instance:
            number, enabled = _port(instance[field], f"{pointer}/{field}", by_default)
            if enabled:
                endpoints[protocol] = {"protocol": protocol, "host": host, "port": number}
    if not endpoints:
        raise BadEntry(pointer, "Neither port nor securePort is enabled.")
    return endpoints


def _port(value: Any, pointer: str, by_default: bool) -> tuple[int, bool]:
    enabled: Any = by_default
    if isinstance(value, dict):
        enabled = value.get("@enabled", by_default)
        value = value.get("$")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadEntry(pointer, "This is no port.")
    return value, str(enabled).lower() == "true"


def _data_centre(instance: Mapping[str, Any]) -> Mapping[str, Any]:
    centre = instance.get("dataCenterInfo")
    metadata = centre.get("metadata") if isinstance(centre, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _maintenance(instance: Mapping[str, Any]) -> str:
    statuses = {instance.get("status"), instance.get("overriddenStatus"), instance.get("overriddenstatus")}
    return "OUT_OF_SERVICE in Eureka" if "OUT_OF_SERVICE" in statuses else ""
