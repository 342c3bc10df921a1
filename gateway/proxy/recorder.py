"""What became of each request, counted in memory and added to the totals in Redis once a second.

Fields of the hash `anumate:{g}:counters`, all of them only ever growing:
    <tenant>|<route>|<service>|<status>              requests
    <tenant>|<route>|<service>|<status>|sum          seconds they took together
    <tenant>|<route>|<service>|<status>|le|<bound>   those of up to <bound> seconds, and over the bound before
Route and service are empty for a request that did not get that far; a caller that hung up counts with status 499.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.proxy.reports import COUNTERS

logger = logging.getLogger("anumate.recorder")

FLUSH_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 2.0
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, float("inf"))
CLIENT_GONE: Final = 499

Cell = tuple[str, str, str, int]


class Tally:
    """The requests of one cell since the last flush."""

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.buckets = [0] * len(BOUNDS)

    def add(self, other: Tally) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.buckets = [ours + theirs for ours, theirs in zip(self.buckets, other.buckets, strict=True)]


class Recorder:
    def __init__(self, redis: Callable[[], aioredis.Redis]) -> None:
        self._redis = redis
        self.tallies: dict[Cell, Tally] = {}

    def record(self, tenant: str, route: str, service: str, status: int, seconds: float) -> None:
        cell = (tenant, route, service, status)
        tally = self.tallies.get(cell)
        if tally is None:
            tally = self.tallies[cell] = Tally()
        tally.count += 1
        tally.seconds += seconds
        tally.buckets[bisect_left(BOUNDS, seconds)] += 1

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what was counted to the totals, all or nothing; what could not be added is kept for the next time.

        It stays as small as the number of its cells, however long Redis is away.
        """
        tallies, self.tallies = self.tallies, {}
        if not tallies:
            return
        pipeline = self._redis().pipeline(transaction=True)
        for (tenant, route, service, status), tally in tallies.items():
            name = f"{tenant}|{route}|{service}|{status}"
            pipeline.hincrby(COUNTERS, name, tally.count)
            pipeline.hincrbyfloat(COUNTERS, f"{name}|sum", round(tally.seconds, 6))
            for bound, count in zip(BOUNDS, tally.buckets, strict=True):
                if count:
                    pipeline.hincrby(COUNTERS, f"{name}|le|{bound:g}", count)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await pipeline.execute()
        except (RedisError, OSError) as error:
            logger.debug("counters wait for Redis: %s", error)
            for cell, tally in tallies.items():
                self.tallies.setdefault(cell, Tally()).add(tally)
