"""When each API key was last used: gathered in memory, told to Redis now and then, written into rows by the worker.

A request pays one assignment. What a process that is killed had not told yet is lost: seconds, and no promise.
"""

from __future__ import annotations

import logging
from typing import Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from registry.live.ops import PREFIX

logger = logging.getLogger("anumate.node")

KEY: Final = PREFIX + "key_used"
"""A sorted set: public ids by seconds since the epoch."""
TELL_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 2.0


class Usage:
    """`seen` are public ids with the time of their last use, since the last telling; never more than there are keys."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    async def tell(self, client: aioredis.Redis) -> None:
        """Add what was seen; while Redis is away, it is kept."""
        seen, self.seen = self.seen, {}
        seen.pop("", None)  # who came without a key
        if not seen:
            return
        try:
            await client.zadd(KEY, seen, gt=True)
        except (RedisError, OSError) as error:
            logger.debug("the use of keys waits for Redis: %s", error)
            self.seen = {**seen, **self.seen}
