"""Reads of the registry: rows for lists, the live state for what is true now."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings

from anumate.lib.redis import connect
from registry.live.catalog import Catalog
from registry.live.instances import Endpoint, Instance
from registry.live.node import get_current
from registry.live.store import SyncStore
from registry.models import Tenant, Zone
from registry.services.states import spoken

_NO_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
"""What the name of a Prometheus label does not take."""


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
    """The tenant's live instances as Prometheus' HTTP service discovery wants them, service by service.

    An instance is a group of its own, because labels belong to groups and every instance has its id. Those that get no
    traffic are among them: they are what people look at.
    """
    now = time.time()
    known = catalog()
    for service in known.services(tenant.name):
        for instance in known.instances(tenant.name, service):
            endpoint = _scraped(instance)
            if endpoint is not None:
                yield {"targets": [_address(endpoint)], "labels": _labels(instance, endpoint, now)}


def _scraped(instance: Instance) -> Endpoint | None:
    """Of those that speak HTTP, the one named metrics, else the first."""
    endpoints = instance.document.endpoints
    spoken = {name: endpoint for name, endpoint in endpoints.items() if endpoint.protocol in {"http", "https"}}
    return spoken.get("metrics") or next(iter(spoken.values()), None)


def _address(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def _labels(instance: Instance, endpoint: Endpoint, now: float) -> dict[str, str]:
    """What targets keep, and as `__meta_anumate_*` what relabelling may pick from (`_metadata_<name>` too)."""
    key, document = instance.key, instance.document
    path = document.metadata.get("metrics_path", "")
    said = {"tenant": key.tenant, "service": key.service, "instance_id": key.id}
    said |= {"version": document.version, "zone": document.zone}
    return {
        **{f"__meta_anumate_metadata_{_NO_LABEL.sub('_', name)}": value for name, value in document.metadata.items()},
        **{f"__meta_anumate_{name}": value for name, value in said.items()},
        "__scheme__": endpoint.protocol,
        "__metrics_path__": path if path.startswith("/") else "/metrics",
        **said,
        "__meta_anumate_health": instance.health,
        "__meta_anumate_state": instance.state(now),
        "__meta_anumate_tags": "".join(f",{tag}" for tag in document.tags) + ("," if document.tags else ""),
    }
