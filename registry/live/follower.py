"""Keeps a catalogue equal to the store: a snapshot, then every change as it comes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from anumate.lib.redis import UNAVAILABLE, connect_async
from registry.live import ops
from registry.live.backoff import Backoff
from registry.live.catalog import Catalog
from registry.live.store import AsyncStore

logger = logging.getLogger("anumate.catalog")

BLOCK_MS = 500
BATCH = 1000
READ_SECONDS = 5.0
SNAPSHOT_SECONDS = 60.0
# Changes that come in a burst are taken together: a wake-up for each would cost more than the change itself.
GATHER_SECONDS = 0.003


class _Missed(Exception):
    """The stream no longer joins on to what is known; only a new snapshot helps."""


class Follower:
    """One task per process. `ready` is set once the catalogue was equal to the store."""

    def __init__(self, redis_url: str, catalog: Catalog) -> None:
        self._url = redis_url
        self._catalog = catalog
        self._backoff = Backoff()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            # Without a timeout of the client's own: before Python 3.12 its wait_for can lose a cancellation that comes
            # while a command is being sent, and this task would never end.
            client = connect_async(self._url, read_timeout=None)
            # After any break the stream has to be joined anew, so the client must not mend it silently.
            client.set_retry(Retry(NoBackoff(), 0))
            try:
                await self._follow(client)
            except _Missed as gap:
                logger.info("reading the catalogue anew: %s", gap)
            except (RedisError, *UNAVAILABLE) as error:
                if self._catalog.stale_since is None:
                    logger.warning("the store is away, going on with what is known: %s", error)
                self._catalog.lost()
            finally:
                await client.aclose()
            await self._rest()

    async def _follow(self, client: aioredis.Redis) -> None:
        async with asyncio.timeout(SNAPSHOT_SECONDS):
            snapshot = await AsyncStore(client).snapshot()
        self._catalog.replace(snapshot)
        self.ready.set()
        self._backoff.reset()
        while True:
            async with asyncio.timeout(READ_SECONDS):
                await self._read_on(client)
            self._catalog.heard()
            self._catalog.expire_held()
            await asyncio.sleep(GATHER_SECONDS)

    async def _read_on(self, client: aioredis.Redis) -> None:
        seq = self._catalog.position.seq
        answer: Any = await client.xread({ops.CHANGES: f"{seq}-0"}, count=BATCH, block=BLOCK_MS)
        if not answer:
            await self._check(client)
            return
        changes = [ops.decode_change(entry) for entry in _entries(answer)]
        if changes[0].seq != seq + 1:
            raise _Missed(f"change {seq + 1} is no longer there")
        self._catalog.apply(*changes)

    async def _check(self, client: aioredis.Redis) -> None:
        """A quiet stream may be that of another store: one that was wiped counts from 1 again."""
        epoch, seq = cast("list[bytes | None]", await client.mget(ops.EPOCH, ops.SEQ))
        known = self._catalog.position
        if epoch is None or epoch.decode() != known.epoch:
            raise _Missed("the store was wiped")
        if int(seq or 0) < known.seq:
            raise _Missed("the store went back in time")

    async def _rest(self) -> None:
        """Wait before the next attempt, while the grace of a wiped store goes on ending."""
        self._catalog.expire_held()
        await self._backoff.sleep()


def _entries(answer: Any) -> Any:
    """The entries of the one stream asked for; redis-py's RESP3 answer is a dict of lists of lists, RESP2's a list."""
    if isinstance(answer, dict):
        return [entry for pages in answer.values() for page in pages for entry in page]
    return answer[0][1]
