"""What operators want of instances, services and zones: the row, its audit, and the fact that every process acts on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from anumate.lib.problem import Problem
from anumate.lib.redis import UNAVAILABLE, connect
from registry.live.instances import Fact, Key
from registry.live.store import SyncStore
from registry.models import Instance, OperatorState, Service, Tenant, Zone
from registry.selectors import catalog, live_zones
from registry.services import history
from registry.services.catalogue import ensure_service
from registry.services.changes import Actor, change
from registry.services.states import live_key, state_fact

logger = logging.getLogger("anumate.operator")

_ACTIONS = {"enabled": "enabled", "draining": "drained", "maintenance": "maintained"}
_WORD = (
    "state",
    "state_reason",
    "state_actor",
    "state_since",
    "state_expires_at",
    "state_ending_at",
    "state_weight",
    "state_before",
)
T = TypeVar("T", bound=Service | Instance | Zone)


def set_state(
    actor: Actor,
    target: T,
    state: str,
    *,
    reason: str = "",
    expires_at: datetime | None = None,
    weight: int | None = None,
) -> T:
    """Take an instance, a whole service or a zone out of traffic, or back in; `weight` (0 to 1000) stands in for the
    registered one. The word ends by itself at `expires_at`, and `undo` takes it back.

    A store that is away does not fail it: the state travels in the section `states` too.
    """
    word = {"state": state, "state_reason": reason, "state_expires_at": expires_at, "state_weight": weight}
    return _say(actor, _ACTIONS[state], target, lambda row: word, reason)


def undo(actor: Actor, target: T, *, reason: str = "") -> T:
    """Go back to what was before the last change. An undo is a change too: undone again, it is as it was.

    Raises:
        Problem: conflict, when nobody has changed anything yet.
    """
    return _say(actor, "undone", target, lambda row: _previous(row.state_before), reason)


def _say(actor: Actor, action: str, target: T, word: Callable[[T], dict[str, Any]], reason: str) -> T:
    with change(actor, action, target, reason=reason):
        locked: Any = type(target)._base_manager.select_for_update()
        target.refresh_from_db(fields=_WORD, from_queryset=locked)
        before, now = _kept(target), timezone.now()
        said = {"state_expires_at": now, **word(target)}
        if target.state_ending_at and target.state_ending_at <= now:
            history.record(history.ended(target))  # nobody can tell of it later
        ends = said["state_expires_at"]
        said["state_ending_at"] = ends if ends and ends > now else None
        values = {**said, "state_before": before, "state_actor": actor.name[:200], "state_since": now}
        for name, value in values.items():
            setattr(target, name, value)
        target.save(update_fields=_WORD)
        history.record(history.spoke(target))
        transaction.on_commit(partial(_announce, live_key(target), state_fact(target)))
    return target


def _kept(target: OperatorState) -> dict[str, Any]:
    """The word as JSON, to come back to; empty when none was said."""
    if target.state_since is None:
        return {}
    ends = target.state_expires_at
    return {
        "state": target.state,
        "reason": target.state_reason,
        "weight": target.state_weight,
        "expires_at": ends.isoformat() if ends else None,
    }


def _previous(kept: dict[str, Any] | None) -> dict[str, Any]:
    if kept is None:
        raise Problem("conflict", "There is nothing to undo.")
    if not kept:
        # A word that ends as it is said. None at all would let a store that was away go on with the last one it heard.
        return {"state": OperatorState.State.ENABLED.value, "state_reason": "", "state_weight": None}
    ends = kept["expires_at"]
    return {
        "state": kept["state"],
        "state_reason": kept["reason"],
        "state_weight": kept["weight"],
        "state_expires_at": datetime.fromisoformat(ends) if ends else None,
    }


def find_zone(tenant: Tenant, name: str) -> Zone:
    """The row of a zone; made when instances are there already.

    Raises:
        Problem: not_found, when no instance ever named it.
    """
    if (zone := Zone.objects.filter(tenant=tenant, name=name).select_related("tenant").first()) is not None:
        return zone
    if name not in live_zones(tenant):
        raise Problem("not_found", "There is no such zone.")
    return Zone.objects.get_or_create(tenant=tenant, name=name)[0]


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
    # Not live until the projection has seen it, so that its joining is told.
    return rows.get_or_create(service=owner, instance_id=instance_id, defaults={"live": False})[0]


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
