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
from uuid import uuid4

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.proxy.reports import COUNTERS

logger = logging.getLogger("anumate.recorder")

COUNTED: Final = "anumate:{g}:counted"
"""Prefix of the ids of batches that are in the totals: an answer that was lost must not make a batch count twice."""
COUNTED_SECONDS: Final = 3600
FLUSH_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 2.0
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, float("inf"))
CLIENT_GONE: Final = 499

# KEYS: the totals, the batch's mark. ARGV: seconds to remember it, how many counts, name and count of each, then name
# and amount of each sum.
ADD: Final = """
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then return 0 end
local counts = 2 + 2 * tonumber(ARGV[2])
for i = 3, counts, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = counts + 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""

Cell = tuple[str, str, str, int]
Batch = tuple[str, list[str | int | float]]
"""Its id, and what the script gets of it."""


class Tally:
    """The requests of one cell since the last flush."""

    __slots__ = ("buckets", "count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.buckets = [0] * len(BOUNDS)


class Recorder:
    def __init__(self, redis: Callable[[], aioredis.Redis]) -> None:
        self._redis = redis
        self.tallies: dict[Cell, Tally] = {}
        self._batch: Batch | None = None  # on its way, perhaps already there
        self._flushing = asyncio.Lock()

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
        """Add what was counted to the totals, each batch whole and once; what could not be added is kept.

        It stays as small as the number of its cells, however long Redis is away.
        """
        async with self._flushing:
            # A batch that may have arrived is repeated as it was; what came after it follows. What comes meanwhile
            # waits for the next flush: under load there is always something.
            if self._batch is not None and not await self._deliver(self._batch):
                return
            if self.tallies:
                tallies, self.tallies = self.tallies, {}
                self._batch = uuid4().hex, _arguments(tallies)
                await self._deliver(self._batch)

    async def _deliver(self, batch: Batch) -> bool:
        id, arguments = batch
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._redis().eval(ADD, 2, COUNTERS, f"{COUNTED}:{id}", COUNTED_SECONDS, *arguments)
        except (RedisError, OSError) as error:
            logger.debug("counters wait for Redis: %s", error)
            return False
        self._batch = None
        return True


def _arguments(tallies: dict[Cell, Tally]) -> list[str | int | float]:
    counts: list[str | int | float] = []
    sums: list[str | int | float] = []
    for (tenant, route, service, status), tally in tallies.items():
        name = f"{tenant}|{route}|{service}|{status}"
        counts += (name, tally.count)
        sums += (f"{name}|sum", round(tally.seconds, 6))
        for bound, count in zip(BOUNDS, tally.buckets, strict=True):
            if count:
                counts += (f"{name}|le|{bound:g}", count)
    return [len(counts) // 2, *counts, *sums]
