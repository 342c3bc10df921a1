"""Reads of the registry: rows for lists, the live state for what is true now."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.db.models import Q

from anumate.lib.redis import connect
from registry.live.catalog import Catalog
from registry.live.instances import Endpoint, Fact, Instance, Key
from registry.live.node import get_current
from registry.live.store import SyncStore
from registry.models import Instance as InstanceRow
from registry.models import Service, Tenant
from registry.services.states import live_key, state_fact

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
        made.set_states(_states())
        return made
    finally:
        client.close()


def _states() -> dict[Key, Fact]:
    spoken = Q(state_since__isnull=False)
    rows: list[Service | InstanceRow] = [
        *Service.objects.filter(spoken).select_related("tenant"),
        *InstanceRow.objects.filter(spoken).select_related("service__tenant"),
    ]
    return {live_key(row): fact for row in rows if (fact := state_fact(row))}


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
        sentence = f"It gets no traffic. {_state_in_force(instance, state, now).sentence.rstrip('.')}."
    elif health == "unhealthy":
        said = (f.sentence for k in ("probe", "reported") if (f := instance.facts.get(k)) and f.value == "unhealthy")
        sentence = f"It gets no traffic: it is unhealthy. {next(said, '')}".strip()
    elif health == "unknown":
        sentence = "It gets traffic: it holds a lease and is enabled; its health is not known yet."
    else:
        sentence = f"It gets traffic: it holds a lease, is enabled and {health}."
    return Why(instance.eligible(now), sentence, health, state, True, instance.facts)


def _state_in_force(instance: Instance, state: str, now: float) -> Fact:
    for kind in ("state", "service_state"):
        fact = instance.facts.get(kind)
        if fact and fact.value == state and not (fact.expires_at and fact.expires_at <= now):
            return fact
    return Fact(state)


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
