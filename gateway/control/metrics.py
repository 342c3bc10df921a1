"""What `/v1/metrics` shows: the registry, balancing, health, breakers and the gateway's requests of one tenant.

The gateway's workers count (`gateway/proxy/recorder.py` says in which fields); this adds up and says it in words that
dashboards know.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from django.conf import settings

from anumate.lib.redis import connect
from gateway.control.breakers import Breaker, breakers_of, worker_reports
from gateway.control.tables import WorkerTable, worker_tables
from gateway.models import Upstream
from gateway.proxy.reports import COUNTERS, quantile, read_counter
from registry.live.catalog import Catalog
from registry.models import Tenant
from registry.selectors import catalog

HEALTHS: Final = ("healthy", "degraded", "unhealthy", "unknown")


@dataclass(slots=True)
class Traffic:
    """Requests that were answered, however they are grouped."""

    requests: int = 0
    seconds: float = 0.0
    by_status: dict[int, int] = field(default_factory=dict)
    by_bound: dict[float, int] = field(default_factory=dict)
    """How many took up to the bound, and longer than the bound before."""

    def add(self, other: Traffic) -> None:
        self.requests += other.requests
        self.seconds += other.seconds
        for mine, theirs in ((self.by_status, other.by_status), (self.by_bound, other.by_bound)):
            _add(mine, theirs)

    @property
    def errors(self) -> int:
        return sum(count for status, count in self.by_status.items() if status >= 500)

    @property
    def mean(self) -> float:
        return self.seconds / self.requests if self.requests else 0.0

    def quantile(self, part: float) -> float:
        """Seconds within which this part of the requests was answered, as near as the buckets tell."""
        return quantile(self.by_bound, part) or 0.0


def _add(mine: dict[Any, int], theirs: Mapping[Any, int]) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count


Place = tuple[str, str]
"""Route and service; both empty for what did not get that far."""


@dataclass(frozen=True, slots=True)
class ServiceNow:
    """A service in the catalogue: how many instances by health, and how they are balanced."""

    name: str
    by_health: dict[str, int]
    eligible: int
    load_balancing: str
    left_out: int = 0
    """Instances that a worker of the gateway, or several, leave out because of what they saw of them."""


@dataclass(frozen=True, slots=True)
class Metrics:
    tenant: str
    at: float
    index: str
    services: list[ServiceNow]
    breakers: list[Breaker]
    traffic: dict[Place, Traffic]
    workers: list[WorkerTable]


def metrics_of(tenant: Tenant) -> Metrics:
    """Everything that is counted of a tenant, now.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    now, known = time.time(), catalog()
    client = connect(settings.REDIS_URL)
    try:
        traffic = read_traffic(_fields(client, tenant.name))
        reports = worker_reports(client)
        workers = worker_tables(client)
    finally:
        client.close()
    left_out = {
        (each.service, each.instance) for report in reports for each in report.left_out if each.tenant == tenant.name
    }
    services = list(_services(tenant, known, now, Counter(service for service, _ in left_out)))
    return Metrics(tenant.name, now, known.index, services, breakers_of(tenant), traffic, workers)


def _fields(client: redis.Redis, tenant: str) -> Iterator[tuple[str, str]]:
    # HSCAN may give an element twice while the hash grows; a dict holds it once.
    for name, value in dict(client.hscan_iter(COUNTERS, match=f"{tenant}|*", count=1000)).items():
        yield name.decode(), value.decode()


def read_traffic(fields: Iterable[tuple[str, str]]) -> dict[Place, Traffic]:
    """Pure: the totals by route and service out of one tenant's counters."""
    found: dict[Place, Traffic] = {}
    for name, value in fields:
        counter = read_counter(name)
        if counter is None:
            continue
        traffic = found.setdefault((counter.route, counter.service), Traffic())
        match counter.kind:
            case "requests":
                traffic.requests += int(value)
                _add(traffic.by_status, {counter.status: int(value)})
            case "seconds":
                traffic.seconds += float(value)
            case "bucket":
                _add(traffic.by_bound, {counter.bound: int(value)})
    return found


def _services(tenant: Tenant, known: Catalog, now: float, left_out: Mapping[str, int]) -> Iterator[ServiceNow]:
    rows = Upstream.objects.filter(service__tenant=tenant)
    strategies = dict(rows.values_list("service__name", "load_balancing"))
    for name in sorted({*known.services(tenant.name), *strategies}):
        instances = known.instances(tenant.name, name)
        by_health = dict.fromkeys(HEALTHS, 0)
        for instance in instances:
            by_health[instance.health] += 1
        eligible = sum(instance.eligible(now) for instance in instances)
        strategy = strategies.get(name, Upstream.Strategy.ROUND_ROBIN.value)
        yield ServiceNow(name, by_health, eligible, strategy, left_out.get(name, 0))


def as_json(metrics: Metrics) -> dict[str, Any]:
    """The body of `GET /v1/metrics`."""
    everything = Traffic()
    for traffic in metrics.traffic.values():
        everything.add(traffic)
    health = {name: sum(each.by_health[name] for each in metrics.services) for name in HEALTHS}
    return {
        "tenant": metrics.tenant,
        "at": metrics.at,
        "registry": {
            "index": metrics.index,
            "services": sum(1 for each in metrics.services if sum(each.by_health.values())),
            "instances": sum(health.values()),
            "eligible_instances": sum(each.eligible for each in metrics.services),
        },
        "health": health,
        "load_balancing": [
            {
                "service": each.name,
                "strategy": each.load_balancing,
                "instances": sum(each.by_health.values()),
                "eligible_instances": each.eligible,
                "left_out_instances": each.left_out,
            }
            for each in metrics.services
        ],
        "circuit_breakers": {each.name: each.state for each in metrics.breakers},
        "gateway": {
            **_shown(everything),
            "routes": [
                {"route": route, "service": service, **_shown(traffic)}
                for (route, service), traffic in sorted(metrics.traffic.items())
            ],
            "workers": [each._asdict() for each in metrics.workers],
        },
    }


def _shown(traffic: Traffic) -> dict[str, Any]:
    return {
        "requests": traffic.requests,
        "errors": traffic.errors,
        "by_status": {str(status): count for status, count in sorted(traffic.by_status.items())},
        "mean_seconds": round(traffic.mean, 6),
        "p50_seconds": round(traffic.quantile(0.5), 6),
        "p95_seconds": round(traffic.quantile(0.95), 6),
        "p99_seconds": round(traffic.quantile(0.99), 6),
    }
