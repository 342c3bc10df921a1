"""Circuit breakers as operators see them: merged from the reports of all gateway workers, and forced for all of them.

Who writes which key, and in what form, is said in `gateway/proxy/reports.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
import redis
from django.conf import settings
from django.db import transaction

from anumate.lib.problem import Problem
from anumate.lib.redis import connect
from gateway.models import RouteTarget, Upstream
from gateway.proxy.reports import (
    FORCE,
    FORCE_CHANNEL,
    REPORTS,
    Action,
    BreakerReport,
    Force,
    LeftOut,
    State,
    WorkerReport,
    key_of_report,
    read_reports,
)
from registry.models import Service, Tenant
from registry.services.audit import note
from registry.services.changes import Actor

SUFFIX: Final = "-circuit"

# KEYS: what operators want. ARGV: the field, the generation, the body. Answers whether it is in force; a word that is
# as young already is not overwritten, for workers may have adopted it.
_PUT: Final = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
local read, force = pcall(cjson.decode, known or '')
local last = read and type(force) == 'table' and tonumber(force.generation) or 0
if last >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""

_WORST_FIRST: Final[tuple[State, ...]] = ("open", "half_open", "closed")
_PAST: Final = {"open": "opened", "close": "closed", "reset": "reset"}


class Breaker(msgspec.Struct, frozen=True):
    """A service's breaker over all workers: the worst state, and the calls of all. No worker: nobody called it yet."""

    name: str
    service: str
    state: State = "closed"
    forced: bool = False
    reason: str = ""
    seconds_in_state: float = 0.0
    retry_in: float = 0.0
    calls: int = 0
    failures: int = 0
    slow_calls: int = 0
    failure_rate: float = 0.0
    consecutive_failures: int = 0
    workers: int = 0
    open_workers: int = 0


def breakers_of(tenant: Tenant) -> list[Breaker]:
    """Every breaker of the tenant, by name: of services that routes or upstreams name, and of those with traffic.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    client = connect(settings.REDIS_URL)
    try:
        reports = reports_now(client)
    finally:
        client.close()
    return merge((each for each in reports if each.tenant == tenant.name), _services(tenant))


def breaker_of(tenant: Tenant, name: str) -> Breaker:
    """Raises Problem not_found when the tenant has no such breaker."""
    found = next((each for each in breakers_of(tenant) if each.name == name), None)
    if found is None:
        raise Problem("not_found", "There is no circuit breaker by this name.")
    return found


def reports_now(client: redis.Redis) -> list[BreakerReport]:
    """The breakers of all workers that are alive."""
    return [breaker for report in worker_reports(client) for breaker in report.breakers]


def worker_reports(client: redis.Redis) -> list[WorkerReport]:
    """What the workers that are alive report."""
    members: Any = client.zrange(REPORTS, 0, -1)
    workers = [member.decode() for member in members]
    bodies: Any = client.mget(map(key_of_report, workers)) if workers else []
    return list(read_reports(zip(workers, bodies, strict=True)))


def left_out_of(tenant: str, service: str) -> dict[str, list[LeftOut]]:
    """What the workers say of those instances of a service that they leave out, by instance.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    found: dict[str, list[LeftOut]] = {}
    for report in _reports():
        for each in report.left_out:
            if (each.tenant, each.service) == (tenant, service):
                found.setdefault(each.instance, []).append(each)
    return found


def skipped_of(tenant: str) -> list[str]:
    """What workers cannot serve of the tenant's rows though it was published, in a sentence each.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    said = (each.sentence for report in _reports() for each in report.skipped if each.tenant == tenant)
    return list(dict.fromkeys(said))


def _reports() -> list[WorkerReport]:
    client = connect(settings.REDIS_URL)
    try:
        return worker_reports(client)
    finally:
        client.close()


def merge(reports: Iterable[BreakerReport], services: Iterable[str] = ()) -> list[Breaker]:
    """Pure: one breaker for each service out of what the workers say."""
    by_service: dict[str, list[BreakerReport]] = {service: [] for service in services}
    for report in reports:
        by_service.setdefault(report.service, []).append(report)
    return [_merged(service, by_service[service]) for service in sorted(by_service)]


def _merged(service: str, reports: list[BreakerReport]) -> Breaker:
    if not reports:
        return Breaker(service + SUFFIX, service)
    worst = min(reports, key=lambda each: (_WORST_FIRST.index(each.state), -each.seconds_in_state))
    calls, failures = sum(each.calls for each in reports), sum(each.failures for each in reports)
    return Breaker(
        name=service + SUFFIX,
        service=service,
        state=worst.state,
        forced=worst.forced,
        reason=worst.reason,
        seconds_in_state=worst.seconds_in_state,
        retry_in=worst.retry_in,
        calls=calls,
        failures=failures,
        slow_calls=sum(each.slow_calls for each in reports),
        failure_rate=round(failures / calls, 4) if calls else 0.0,
        consecutive_failures=max(each.consecutive_failures for each in reports),
        workers=len(reports),
        open_workers=sum(each.state == "open" for each in reports),
    )


def _services(tenant: Tenant) -> set[str]:
    targets = RouteTarget.objects.filter(route__tenant=tenant).values_list("service__name", flat=True)
    upstreams = Upstream.objects.filter(service__tenant=tenant).values_list("service__name", flat=True)
    return {*targets, *upstreams}


class Forced(NamedTuple):
    """What was asked of a breaker. Workers adopt each generation once."""

    name: str
    service: str
    action: Action
    generation: int


def force(actor: Actor, tenant: Tenant, name: str, action: Action, *, reason: str = "") -> Forced:
    """Hold a breaker open or closed on every worker, or let it decide for itself again (`reset`), within a second.

    Raises:
        Problem: not_found.
        redis.ConnectionError and its like: the store is away, nothing was done.
    """
    service = breaker_of(tenant, name).service
    about = Service.objects.filter(tenant=tenant, name=service).select_related("tenant").first()
    client = connect(settings.REDIS_URL)
    field, in_force = f"{tenant.name}/{service}", False
    try:
        while not in_force:
            generation, now = _next_generation(client, field)
            wanted = Force(action, generation, actor.name, reason, now)
            with transaction.atomic():  # in force only with its audit row, and no row of what never was in force
                note(
                    actor,
                    f"breaker {_PAST[action]}",
                    about or tenant,
                    reason=reason,
                    after=msgspec.structs.asdict(wanted),
                )
                in_force = bool(client.eval(_PUT, 1, FORCE, field, str(wanted.generation), msgspec.json.encode(wanted)))
                transaction.set_rollback(not in_force)  # another operator was faster
        client.publish(FORCE_CHANNEL, field)
    finally:
        client.close()
    return Forced(name, service, action, generation)


def _next_generation(client: redis.Redis, field: str) -> tuple[int, int]:
    """A number above the last word's, and the store's time in seconds.

    It comes of the store's clock, so it goes on growing when the store was wiped; a counter would not.
    """
    seconds, micros = client.time()
    known = client.hget(FORCE, field)
    try:
        last = msgspec.json.decode(known, type=Force).generation if known else 0
    except msgspec.MsgspecError:
        last = 0
    return max(seconds * 1_000_000 + micros, last + 1), seconds
