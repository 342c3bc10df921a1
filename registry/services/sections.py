"""Rows → sections: keys, tenants and operators' words, from which every process answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import redis
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from anumate.lib.redis import UNAVAILABLE, connect
from registry.live.instances import Fact, Key
from registry.live.keys import KeySection, StateSection, TenantRecord, TenantSection
from registry.live.sections import publish
from registry.live.store import SyncStore
from registry.models import ApiKey, Revision, Tenant
from registry.services.keys import record_of
from registry.services.states import spoken

logger = logging.getLogger("anumate.publish")


def publish_sections(client: redis.Redis | None = None) -> list[str]:
    """Put what the rows say before every process. Answers the names of the sections that changed by it.

    Raises:
        redis.ConnectionError and its like: the store is away; beat tries again.
    """
    if client is None:
        with connect(settings.REDIS_URL) as client:
            return publish_sections(client)
    # The number first: a change in between makes the rows newer than their number, and is published once more.
    revision, _ = Revision.objects.get_or_create(pk=1)
    origin, number = str(revision.origin), revision.number
    said = states()
    sections = {"tenants": tenants(), "keys": keys(), "states": said}
    bodies = {name: msgspec.json.encode(section) for name, section in sections.items()}
    changed = [
        name for name, body in bodies.items() if publish(client, name, origin=origin, revision=number, body=body)
    ]
    if "states" in changed:
        _put_states(SyncStore(client), said.states)
    return changed


def _put_states(store: SyncStore, states: Mapping[str, Fact]) -> None:
    """Have the live state say it too where it does not: only its changes have an index, by which others wait."""
    wanted = {Key.parse(name): fact for name, fact in states.items()}
    for key, known in store.read(list(wanted)).items():
        said, fact = known.facts.get("state"), wanted[key]
        if said is None and fact.value == "enabled" and fact.weight is None:
            continue
        if said is None or said.since < fact.since:
            store.put_fact(key, "state", fact)


def on_change(model: str, **_: Any) -> None:
    """After the commit of a change of ours. A store that is away must not fail an edit that is saved."""
    if not model.startswith("registry."):
        return
    try:
        publish_sections()
    except UNAVAILABLE as error:
        logger.warning("The store is away, the edit reaches every process when it is back: %s", error)


def tenants() -> TenantSection:
    rows = Tenant.objects.order_by("name").prefetch_related("hosts")
    return TenantSection(tuple(map(_tenant, rows)))


def keys() -> KeySection:
    """Every key that may still be used. An expired one stays a while, so that its owner is told why it is refused."""
    rows = ApiKey.objects.filter(revoked_at=None, tenant__active=True).select_related("tenant").order_by("pk")
    recent = timezone.now() - timedelta(days=30)
    return KeySection(tuple(record_of(row) for row in rows.filter(Q(expires_at=None) | Q(expires_at__gt=recent))))


def states() -> StateSection:
    """What operators said of zones, services and instances."""
    return StateSection({str(key): fact for key, fact in spoken().items()})


def _tenant(row: Tenant) -> TenantRecord:
    hosts = tuple(each.host for each in row.hosts.all())
    return TenantRecord(row.name, row.active, hosts, row.max_services, row.max_instances, row.max_requests_per_second)
