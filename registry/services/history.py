"""Writes the history of instances: in the transaction of what happened, so that each event is there exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from registry.models import Instance, InstanceEvent, Service, Zone
from registry.services.states import Target

KEPT: Final = timedelta(days=90)
PRUNED_AT_ONCE: Final = 5_000
Kind = InstanceEvent.Kind


def joined(row: Instance) -> list[InstanceEvent]:
    """Its joining; it may be held before anybody looked."""
    held = [_event(row, Kind.HELD, row.held_since, row.version)] if row.held_since else []
    return [_event(row, Kind.JOINED, row.registered_at, row.version), *held]


def left(row: Instance, at: datetime) -> list[InstanceEvent]:
    """Its leaving, and the end of what its lease was held for."""
    held = [_held_ended(row, at, renewed=False)] if row.held_since else []
    return [*held, _event(row, Kind.LEFT, at, row.version)]


def differences(row: Instance, values: Mapping[str, Any], *, went: bool) -> Iterator[InstanceEvent]:
    """What happens to a row that is about to get these values. `went`: it left and came back in between."""
    if not values["live"]:
        if row.live:
            yield from left(row, values["gone_at"])
        return
    came_at, version = values["registered_at"], values["version"]
    # The same news may come twice; an instance that is as old as its row has not come back since.
    back = went and row.live and came_at != row.registered_at
    if back:
        yield from left(row, came_at)
    if back or not row.live:
        yield _event(row, Kind.JOINED, came_at, version)
    if row.version and row.version != version:
        told = {"from": row.version, "to": version}
        yield _event(row, Kind.VERSION_CHANGED, timezone.now(), version, told)
    before, since = (None if back else row.held_since), values["held_since"]
    if before and before != since:
        yield _held_ended(row, timezone.now(), renewed=True)
    if since and before != since:
        yield _event(row, Kind.HELD, since, version)


def spoke(target: Target) -> list[InstanceEvent]:
    """An operator's word as events: of the instance, of the service, or of each service in the zone."""
    return _word(target, Kind.STATE_CHANGED, target.state_since or timezone.now())


def ended(target: Target) -> list[InstanceEvent]:
    """The end of that word, which came by itself, likewise."""
    return _word(target, Kind.STATE_ENDED, target.state_ending_at or timezone.now())


def _word(target: Target, kind: str, at: datetime) -> list[InstanceEvent]:
    told = {
        "state": target.state,
        "weight": target.state_weight,
        "reason": target.state_reason,
        "actor": target.state_actor,
        "expires_at": target.state_expires_at.isoformat() if target.state_expires_at else None,
    }
    if isinstance(target, Instance):
        return [_event(target, kind, at, target.version, told)]
    if isinstance(target, Service):
        return [InstanceEvent(tenant=target.tenant, service=target.name, kind=kind, at=at, details=told)]
    told["zone"] = target.name
    return [
        InstanceEvent(tenant=target.tenant, service=name, kind=kind, at=at, details=told)
        for name in _services_in(target)
    ]


def record(events: Iterable[InstanceEvent]) -> None:
    """Write them, those that stand there already excepted."""
    InstanceEvent.objects.bulk_create(list(events), ignore_conflicts=True)


def prune(now: datetime | None = None) -> int:
    """Forget what is older than we keep, a bounded number at a time; answers how many."""
    old = InstanceEvent.objects.filter(at__lt=(now or timezone.now()) - KEPT).order_by("at")
    return InstanceEvent.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:PRUNED_AT_ONCE])).delete()[0]


def _services_in(zone: Zone) -> list[str]:
    rows = Instance.objects.filter(service__tenant=zone.tenant, zone=zone.name, live=True).order_by("service__name")
    return list(rows.values_list("service__name", flat=True).distinct())


def _held_ended(row: Instance, at: datetime, *, renewed: bool) -> InstanceEvent:
    return _event(row, Kind.HELD_ENDED, at, row.version, {"renewed": renewed})


def _event(
    row: Instance, kind: str, at: datetime, version: str, details: dict[str, Any] | None = None
) -> InstanceEvent:
    service = row.service
    return InstanceEvent(
        tenant_id=service.tenant_id,
        service=service.name,
        instance_id=row.instance_id,
        kind=kind,
        at=at,
        version=version,
        details=details or {},
    )
