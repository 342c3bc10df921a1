"""Registers what was found in another registry."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from registry.importing.entries import Found
from registry.live.store import SyncStore
from registry.models import Instance, OperatorState, Tenant
from registry.services import operator
from registry.services.catalogue import ensure_service
from registry.services.changes import Actor, one_step


def register_all(actor: Actor, tenant: Tenant, instances: Sequence[Found], client: redis.Redis) -> None:
    """Declare the services and give every instance a lease; those in maintenance there are so here. Importing the same
    again renews the leases and changes nothing else.

    Raises:
        redis.ConnectionError and its like: the store is away; no row is written.
    """
    store = SyncStore(client)
    with one_step():
        for each in instances:
            service = ensure_service(actor, tenant, each.registration.name)
            key = each.registration.key(tenant.name)
            if each.maintenance:
                row, _ = Instance.objects.get_or_create(service=service, instance_id=key.id)
                if row.state != OperatorState.State.MAINTENANCE:
                    operator.set_state(actor, row, OperatorState.State.MAINTENANCE, reason=each.maintenance)
        for each in instances:
            key = each.registration.key(tenant.name)
            store.register(key, each.registration.document(), check=each.registration.check())
