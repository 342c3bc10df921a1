"""Rates and latencies from the gateway's running totals. Pure: totals and a time in, figures out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from gateway.proxy.reports import Counter, quantile, read_counter

RATE_SECONDS = 5.0
"""Workers flush once a second, each at its own moment; over five seconds their steps even out."""
SHARE_SECONDS = 60.0
SERIES_POINTS = 120


class Totals(msgspec.Struct):
    """Everything a service's requests ever added up to. `buckets` counts durations by their bucket's upper bound."""

    requests: float = 0.0
    errors: float = 0.0
    seconds: float = 0.0
    buckets: dict[float, float] = {}

    def add(self, other: Totals) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.seconds += other.seconds
        for bound, count in other.buckets.items():
            self.buckets[bound] = self.buckets.get(bound, 0.0) + count

    def since(self, earlier: Totals) -> Totals:
        """What was added since `earlier`; everything, when the counters started anew meanwhile."""
        if earlier.requests > self.requests:
            return self
        return Totals(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            self.seconds - earlier.seconds,
            {bound: count - earlier.buckets.get(bound, 0.0) for bound, count in self.buckets.items()},
        )


class Rates(msgspec.Struct, frozen=True, array_like=True):
    """Requests a second now; the share of errors and the latency (seconds) of the last minute, None without any.

    An array on the wire: a page gets one for every busy service each second.
    """

    rps: float = 0.0
    errors: float | None = None
    mean: float | None = None
    p95: float | None = None


class Traffic(msgspec.Struct, frozen=True):
    """The whole tenant, and each of its services that had requests in the last minute."""

    total: Rates
    services: dict[str, Rates]


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One moment of the sparkline."""

    at: float
    rps: float
    errors: float


def read_counters(raw: Mapping[bytes, bytes]) -> dict[str, dict[str, Totals]]:
    """The hash the gateway's recorders flush to, as tenant → service → totals; what is not ours is passed over."""
    found: dict[str, dict[str, Totals]] = {}
    for field, value in raw.items():
        counter = read_counter(field.decode(errors="replace"))
        if counter is None:
            continue
        totals = found.setdefault(counter.tenant, {}).setdefault(counter.service, Totals())
        _count(totals, counter, float(value))
    return found


def _count(totals: Totals, counter: Counter, value: float) -> None:
    match counter.kind:
        case "requests":
            totals.requests += value
            totals.errors += value if counter.status >= 500 else 0.0
        case "seconds":
            totals.seconds += value
        case "bucket":
            totals.buckets[counter.bound] = totals.buckets.get(counter.bound, 0.0) + value


class Meter:
    """Remembers the last minute of one tenant's totals, and the points of its sparkline."""

    def __init__(self) -> None:
        self.samples: deque[tuple[float, Totals, dict[str, Totals]]] = deque()
        self.points: deque[Point] = deque(maxlen=SERIES_POINTS)
        self.traffic = Traffic(Rates(), {})

    def take(self, now: float, services: Mapping[str, Totals]) -> Point | None:
        """Adds a sample; `traffic` and the answered point follow from it. A first sample tells no rate yet."""
        self.samples.append((now, _sum(services.values()), dict(services)))
        while len(self.samples) > 1 and self.samples[1][0] <= now - SHARE_SECONDS:
            self.samples.popleft()
        if len(self.samples) == 1:
            return None
        self.traffic = self._traffic(now)
        point = Point(now, self.traffic.total.rps, self._error_rate(now))
        self.points.append(point)
        return point

    def _traffic(self, now: float) -> Traffic:
        _, old_total, old = self.samples[0]
        recent_at, recent_total, recent = self._sample_before(now - RATE_SECONDS)
        _, total, services = self.samples[-1]
        elapsed = now - recent_at
        per_service = {
            name: _rates(totals, recent.get(name, Totals()), old.get(name, Totals()), elapsed)
            for name, totals in services.items()
            if totals.requests != old.get(name, Totals()).requests
        }
        return Traffic(_rates(total, recent_total, old_total, elapsed), per_service)

    def _error_rate(self, now: float) -> float:
        at, recent, _ = self._sample_before(now - RATE_SECONDS)
        return _per_second(self.samples[-1][1].since(recent).errors, now - at)

    def _sample_before(self, moment: float) -> tuple[float, Totals, dict[str, Totals]]:
        """The newest sample that is at least as old as `moment`; the oldest of all when none is."""
        for sample in reversed(self.samples):
            if sample[0] <= moment:
                return sample
        return self.samples[0]


def _sum(each: Iterable[Totals]) -> Totals:
    total = Totals()
    for totals in each:
        total.add(totals)
    return total


def _rates(now: Totals, recent: Totals, old: Totals, elapsed: float) -> Rates:
    minute = now.since(old)
    p95 = quantile(minute.buckets, 0.95)
    return Rates(
        rps=_per_second(now.since(recent).requests, elapsed),
        errors=round(minute.errors / minute.requests, 5) if minute.requests else None,
        mean=round(minute.seconds / minute.requests, 5) if minute.requests else None,
        p95=None if p95 is None else round(p95, 5),
    )


def _per_second(count: float, elapsed: float) -> float:
    return round(count / elapsed, 2) if elapsed > 0 else 0.0
