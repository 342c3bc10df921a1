"""Reads of health: checks from rows, what came of them from the live state."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import redis
from django.db.models import OuterRef, QuerySet, Subquery

from health.models import Flip, HealthCheck
from health.plan import DEFAULT, Check, checks_of, target_of
from health.roster import Configured, ServiceName
from health.schedule import History, Member, histories
from health.verdict import Thresholds
from registry.live.catalog import Catalog
from registry.live.instances import Fact, Health, Instance
from registry.models import Tenant
from registry.timeline import Entry, Journal

# For people, not knowing is worse than knowing that all is well.
WORST_FIRST: Final[tuple[Health, ...]] = ("unhealthy", "degraded", "unknown", "healthy")
ILL: Final = ("unhealthy", "degraded")


def configured_checks(tenant: str = "") -> Configured:
    """The checks of every service that has some, of one tenant or of all active ones."""
    rows = HealthCheck.objects.filter(service__tenant__active=True).select_related("service__tenant").order_by("pk")
    if tenant:
        rows = rows.filter(service__tenant__name=tenant)
    found: dict[ServiceName, list[Check]] = defaultdict(list)
    for row in rows:
        found[row.service.tenant.name, row.service.name].append(check_of(row))
    return dict(found)


def check_of(row: HealthCheck) -> Check:
    return Check(
        id=row.pk,
        kind=row.check_type,  # type: ignore[arg-type]  # a choice of the same two words
        interval=row.interval,
        timeout=row.timeout,
        endpoint=row.endpoint,
        path=row.path,
        thresholds=Thresholds(row.success_threshold, row.failure_threshold, row.warning_threshold),
        instance_id=row.instance_id,
        enabled=row.enabled,
    )


def incidents(tenant: Tenant) -> QuerySet[Flip]:
    """Each time an instance was ill, latest first; `ended_at` is None while it is."""
    later = Flip.objects.filter(
        tenant=OuterRef("tenant"),
        service=OuterRef("service"),
        instance_id=OuterRef("instance_id"),
        pk__gt=OuterRef("pk"),
    ).order_by("pk")
    flips = Flip.objects.filter(tenant=tenant, new__in=ILL)
    return flips.annotate(ended_at=Subquery(later.values("at")[:1]))


def journal(tenant: Tenant, service: str, instance_id: str = "") -> Journal:
    """The flips of a service, or of one instance, for its timeline."""
    rows = Flip.objects.filter(tenant=tenant, service=service)
    if instance_id:
        rows = rows.filter(instance_id=instance_id)
    return Journal(rows.order_by("-at", "-pk"), _tell)


def _tell(flip: Flip) -> Entry:
    sentence = f"It went from {flip.old} to {flip.new}: {flip.sentence}"
    return Entry(flip.at, "flip", flip.instance_id, sentence, details={"from": flip.old, "to": flip.new})


def status(tenant: Tenant, catalog: Catalog, client: redis.Redis, service: str = "") -> dict[str, Any]:
    """How the tenant's services are, down to the last result of each check."""
    names = [service] if service else catalog.services(tenant.name)
    configured = configured_checks(tenant.name)
    instances = {name: catalog.instances(tenant.name, name) for name in names}
    checks = {
        instance.key: checks_of(instance, configured.get((tenant.name, name), ()))
        for name, found in instances.items()
        for instance in found
    }
    members = [Member(key, check.id) for key, found in checks.items() for check in found]
    known = histories(client, members)
    services = [
        _service(name, [_instance(each, checks[each.key], known) for each in found])
        for name, found in instances.items()
        if found
    ]
    counts = Counter(each["status"] for one in services for each in one["instances"])
    return {
        "status": _worst(one["status"] for one in services),
        "services": services,
        "counts": {health: counts[health] for health in WORST_FIRST},
    }


def checked(tenant: Tenant, instances: Sequence[Instance], client: redis.Redis) -> dict[str, list[dict[str, Any]]]:
    """Each check of these instances of one service, with its last result, by the id of the instance."""
    configured = configured_checks(tenant.name)
    checks = [(each, checks_of(each, configured.get((tenant.name, each.key.service), ()))) for each in instances]
    known = histories(client, [Member(each.key, check.id) for each, found in checks for check in found])
    return {
        each.key.id: [_check(each, check, known[Member(each.key, check.id)]) for check in found]
        for each, found in checks
    }


def _service(name: str, instances: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "status": _worst(each["status"] for each in instances), "instances": instances}


def _instance(instance: Instance, checks: Sequence[Check], known: dict[Member, History]) -> dict[str, Any]:
    spoke = _who_decided(instance)
    return {
        "instance_id": instance.key.id,
        "status": instance.health,
        "state": instance.state(time.time()),
        "sentence": spoke.sentence if spoke else "No check has come to a verdict yet",
        "since": _moment(spoke.since if spoke else instance.registered_at),
        "checks": [_check(instance, check, known[Member(instance.key, check.id)]) for check in checks],
    }


def _who_decided(instance: Instance) -> Fact | None:
    """The fact that makes its health what it is."""
    facts = (instance.facts.get(kind) for kind in ("probe", "reported"))
    return next((fact for fact in facts if fact and fact.value == instance.health), None)


def _check(instance: Instance, check: Check, history: History) -> dict[str, Any]:
    streak, last = history.streak, history.results[0] if history.results else None
    shown: dict[str, Any] = {
        "check_type": check.kind,
        "endpoint": check.endpoint,
        "path": check.path if check.kind == "http" else "",
        "interval": check.interval,
        "timeout": check.timeout,
        "origin": "configured" if check.id else "default" if check == DEFAULT else "instance",
        "status": streak.verdict,
        "since": _moment(streak.since),
        "successes": streak.successes,
        "failures": streak.failures,
        "sentence": _unasked(instance, check),
        "checked_at": None,
        "latency": None,
    }
    if last:
        shown |= {
            "sentence": last.outcome.sentence,
            "checked_at": _moment(last.at),
            "latency": round(last.outcome.latency, 6),
        }
    return shown


def _unasked(instance: Instance, check: Check) -> str:
    if target_of(instance, check) is None:
        return f"It has no endpoint named {check.endpoint}" if check.endpoint else "It has no endpoint"
    return "It has not been asked yet"


def _worst(statuses: Iterable[Health]) -> Health:
    return min(statuses, key=WORST_FIRST.index, default="unknown")


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
