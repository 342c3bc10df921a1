"""Reads of the registry: rows for lists, the live state for what is true now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.conf import settings

from anumate.lib.redis import connect
from registry.live.catalog import Catalog
from registry.live.instances import Endpoint, Fact, Instance, Key
from registry.live.node import get_current
from registry.live.store import SyncStore
from registry.models import Instance as InstanceRow
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


class Why(NamedTuple):
    """Whether an instance gets traffic, the sentence why, and the facts behind it."""

    eligible: bool
    sentence: str
    health: str
    state: str
    live: bool
    facts: Mapping[str, Fact]


def why_of(tenant: Tenant, service: str, instance_id: str, now: float) -> Why | None:
    """None when nobody has heard of the instance."""
    live = catalog().get(Key(tenant.name, service, instance_id))
    if live is not None:
        return why(live, now)
    row = InstanceRow.objects.filter(service__tenant=tenant, service__name=service, instance_id=instance_id).first()
    if row is None:
        return None
    since = f" since {row.gone_at:%Y-%m-%d %H:%M:%S} UTC" if row.gone_at else ""
    sentence = f"It gets no traffic: it holds no lease{since}. It deregistered, or its heartbeats stopped."
    return Why(False, sentence, "unknown", row.state, False, {})


def why(instance: Instance, now: float) -> Why:
    """Pure: what the facts about a live instance come to."""
    health, state = instance.health, instance.state(now)
    if state != "enabled":
        sentence = f"It gets no traffic. {next(instance.words(now))[1].sentence.rstrip('.')}."
    elif health == "unhealthy":
        said = (f.sentence for k in ("probe", "reported") if (f := instance.facts.get(k)) and f.value == "unhealthy")
        sentence = f"It gets no traffic: it is unhealthy. {next(said, '')}".strip()
    elif health == "unknown":
        sentence = "It gets traffic: it holds a lease and is enabled; its health is not known yet."
    else:
        sentence = f"It gets traffic: it holds a lease, is enabled and {health}."
    return Why(instance.eligible(now), sentence, health, state, True, instance.facts)


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
