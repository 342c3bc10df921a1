"""What the breakers of all workers decide together, once a second, out of each other's reports.

A worker's own window decides at once, and for that worker alone: its bad luck opens nothing for others. Merged, the
counts of all workers may open a breaker for all of them, so that eight quiet workers add up. When the wait is over, one
worker tries for all: it holds the lease of the trials, so that no more requests than the policy says come to a service
that may recover. When its trials are good, the others close too. Without Redis, each worker decides for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis.asyncio as aioredis

from anumate_integration_service.breaker import CircuitBreaker, Snapshot
from gateway.proxy.reports import REPORTS, BreakerReport, WorkerReport, key_of_report, read_reports

TRIAL: Final = "anumate:{g}:trial"
TRIAL_SECONDS: Final = 30.0
"""How long a worker that is never heard of again keeps others from trying."""
AHEAD_SECONDS: Final = 2.0
"""So long before its wait is over, a breaker asks for leave to try: more than two reports take."""

Pair = tuple[str, str]


class Quorum:
    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._holds: set[Pair] = set()

    async def agree(self, redis: aioredis.Redis, breakers: Mapping[Pair, CircuitBreaker], now: float) -> None:
        """Decide with the others.

        Raises:
            redis.RedisError, OSError: they cannot be heard; `alone` is next.
        """
        others = await self._others(redis)
        for pair, breaker in breakers.items():
            together([report for report in others if (report.tenant, report.service) == pair], breaker, now)
        for pair, breaker in breakers.items():
            await self._ask_for_trials(redis, pair, breaker, now)

    def alone(self, breakers: Iterable[CircuitBreaker]) -> None:
        """Nobody can be asked: each decides for itself."""
        for breaker in breakers:
            breaker.may_try = True

    async def _others(self, redis: aioredis.Redis) -> list[BreakerReport]:
        members: Any = await redis.zrange(REPORTS, 0, -1)
        workers = [name for member in members if (name := member.decode()) != self._worker]
        if not workers:
            return []
        bodies: Any = await redis.mget([key_of_report(worker) for worker in workers])
        reports: Iterable[WorkerReport] = read_reports(zip(workers, bodies, strict=True))
        return [breaker for report in reports for breaker in report.breakers]

    async def _ask_for_trials(self, redis: aioredis.Redis, pair: Pair, breaker: CircuitBreaker, now: float) -> None:
        seen = breaker.snapshot(now)
        key = f"{TRIAL}:{pair[0]}/{pair[1]}"
        if seen.forced or seen.state == "closed" or (seen.state == "open" and seen.retry_in > AHEAD_SECONDS):
            breaker.may_try = seen.state == "closed" or seen.forced
            if pair in self._holds:
                self._holds.discard(pair)
                await redis.delete(key)
            return
        taken: Any = await redis.set(key, self._worker, nx=True, px=int(TRIAL_SECONDS * 1000))
        if not taken:
            holder: Any = await redis.get(key)
            taken = holder is not None and holder.decode() == self._worker
        breaker.may_try = bool(taken)
        if taken:
            self._holds.add(pair)
        else:
            self._holds.discard(pair)


def together(others: Iterable[BreakerReport], breaker: CircuitBreaker, now: float) -> None:
    """Open with the others, or close with them. Pure but for the breaker."""
    seen = breaker.snapshot(now)
    if seen.state == "closed":
        counted: list[Snapshot | BreakerReport] = [seen, *(each for each in others if each.state == "closed")]
        if len(counted) > 1:
            reason = breaker.policy.verdict(
                sum(each.calls for each in counted),
                sum(each.failures for each in counted),
                sum(each.slow_calls for each in counted),
            )
            if reason:
                breaker.trip(now, f"Of {len(counted)} workers together: {reason}")
    elif any(each.recovered and each.seconds_in_state < seen.seconds_in_state for each in others):
        breaker.recover(now, "Trial calls of another worker succeeded.")
