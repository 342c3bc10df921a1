"""What operators want of services and instances: the row, its audit, and the fact that every process acts on."""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from anumate.lib.problem import Problem
from anumate.lib.redis import UNAVAILABLE, connect
from registry.live.instances import Fact, Key
from registry.live.store import SyncStore
from registry.models import Instance, Service, Tenant
from registry.selectors import catalog
from registry.services.catalogue import ensure_service
from registry.services.changes import Actor, change
from registry.services.states import live_key, state_fact

logger = logging.getLogger("anumate.operator")

_ACTIONS = {"enabled": "enabled", "draining": "drained", "maintenance": "maintained"}


def set_state(
    actor: Actor,
    target: Service | Instance,
    state: str,
    *,
    reason: str = "",
    expires_at: datetime | None = None,
) -> Service | Instance:
    """Take an instance or a whole service out of traffic, or back in. It ends by itself at `expires_at`.

    A store that is away does not fail it: the state travels in the section `states` too.
    """
    with change(actor, _ACTIONS[state], target, reason=reason):
        target.state = state
        target.state_reason = reason
        target.state_actor = actor.name[:200]
        target.state_since = timezone.now()
        target.state_expires_at = None if state == Service.State.ENABLED else expires_at
        target.save(update_fields=["state", "state_reason", "state_actor", "state_since", "state_expires_at"])
        transaction.on_commit(partial(_announce, live_key(target), state_fact(target)))
    return target


def find_target(actor: Actor, tenant: Tenant, service: str, instance_id: str = "") -> Service | Instance:
    """The row of a service or an instance. What is live but has no row yet gets one.

    Raises:
        Problem: not_found, when neither rows nor live state know it.
    """
    rows = Instance.objects.select_related("service__tenant")
    target: Service | Instance | None
    if instance_id:
        target = rows.filter(service__tenant=tenant, service__name=service, instance_id=instance_id).first()
    else:
        target = Service.objects.filter(tenant=tenant, name=service).select_related("tenant").first()
    if target is not None:
        return target
    if not _is_live(Key(tenant.name, service, instance_id)):
        raise Problem("not_found", "There is no such instance." if instance_id else "There is no such service.")
    owner = ensure_service(actor, tenant, service)
    if not instance_id:
        return owner
    return rows.get_or_create(service=owner, instance_id=instance_id)[0]


def _is_live(key: Key) -> bool:
    known = catalog()
    return known.get(key) is not None if key.id else key.service in known.services(key.tenant)


def _announce(key: Key, fact: Fact | None) -> None:
    try:
        client = connect(settings.REDIS_URL)
        try:
            SyncStore(client).put_fact(key, "state", fact)
        finally:
            client.close()
    except UNAVAILABLE as error:
        logger.warning("The live state is away, the state of %s reaches it later: %s", key, error)
