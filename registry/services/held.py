"""Instances whose leases lapsed in a crowd: they stay for ten minutes, unless somebody lets them go."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from anumate.lib.redis import connect
from registry.live.instances import Instance
from registry.live.store import SyncStore
from registry.models import Tenant
from registry.selectors import catalog
from registry.services.audit import note
from registry.services.changes import Actor


def held(tenant: Tenant, service: str = "") -> Iterator[Instance]:
    """Who is held, by service and id; a fact `held` says since when, until when and why."""
    known = catalog()
    for name in (service,) if service else known.services(tenant.name):
        for instance in known.instances(tenant.name, name):
            if "held" in instance.facts:
                yield instance


def release(actor: Actor, tenant: Tenant, service: str = "", *, reason: str = "") -> int:
    """Have the next sweep end what is held of the tenant, or of one service, and has not renewed by then.

    Answers how many instances that are. Nothing held is no event: then nothing is audited.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    with connect(settings.REDIS_URL) as client:
        released = SyncStore(client).release(tenant.name, service)
    if released:
        note(actor, "released", tenant, reason=reason, after={"service": service, "instances": released})
    return released
