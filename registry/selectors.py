"""Reads of the registry: rows for lists, the live state for what is true now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.conf import settings

from anumate.lib.redis import connect
from registry.live.catalog import Catalog
from registry.live.instances import Endpoint, Instance
from registry.live.node import get_current
from registry.live.store import SyncStore
from registry.models import Tenant, Zone
from registry.services.states import spoken


def catalog() -> Catalog:
    """The catalogue this process follows; where it follows none (commands, tasks), one made from the store.

    Raises:
        redis.ConnectionError and its like: none is followed and the store is away.
    """
    node = get_current()
    if node is not None:
        return node.catalog
    client = connect(settings.REDIS_URL)
    try:
        made = Catalog()
        made.replace(SyncStore(client).snapshot())
        made.set_states(spoken())
        return made
    finally:
        client.close()


def live_zones(tenant: Tenant) -> Counter[str]:
    """The zones that live instances name, with how many do."""
    known = catalog()
    everyone = (each for service in known.services(tenant.name) for each in known.instances(tenant.name, service))
    return Counter(each.document.zone for each in everyone if each.document.zone)


def zones(tenant: Tenant) -> list[Any]:
    """Every zone of the tenant that somebody is, or was, in; `instances` says how many are."""
    counts = live_zones(tenant)
    rows = {row.name: row for row in Zone.objects.filter(tenant=tenant)}
    found: list[Any] = [
        rows.get(name) or Zone(tenant=tenant, name=name) for name in sorted(rows.keys() | counts.keys())
    ]
    for zone in found:
        zone.instances = counts[zone.name]
    return found


def scrape_targets(tenant: Tenant) -> Iterator[dict[str, Any]]:
    """The tenant's live instances as Prometheus' HTTP service discovery wants them."""
    known = catalog()
    for service in known.services(tenant.name):
        for instance in known.instances(tenant.name, service):
            endpoint = _scraped(instance)
            if endpoint is not None:
                yield {"targets": [_address(endpoint)], "labels": _labels(instance, endpoint)}


def _scraped(instance: Instance) -> Endpoint | None:
    """An endpoint named metrics, else the first that speaks HTTP."""
    endpoints = instance.document.endpoints
    spoken = [endpoint for endpoint in endpoints.values() if endpoint.protocol in {"http", "https"}]
    return endpoints.get("metrics") or next(iter(spoken), None)


def _address(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def _labels(instance: Instance, endpoint: Endpoint) -> dict[str, str]:
    key, document = instance.key, instance.document
    return {
        "__scheme__": "https" if endpoint.protocol == "https" else "http",
        "__metrics_path__": document.metadata.get("metrics_path", "/metrics"),
        "tenant": key.tenant,
        "service": key.service,
        "instance_id": key.id,
        "version": document.version,
        "zone": document.zone,
        "__meta_anumate_health": instance.health,
        "__meta_anumate_tags": "".join(f",{tag}" for tag in document.tags) + ("," if document.tags else ""),
    }
