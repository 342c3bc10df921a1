from __future__ import annotations

from typing import Any

import redis
import redis.asyncio as aioredis

from gateway.proxy.recorder import Recorder
from gateway.proxy.reports import COUNTERS


class LosesAnswers:
    """A connection that does what it is asked to, and loses the first answers on their way back."""

    def __init__(self, client: aioredis.Redis, lost: int) -> None:
        self.client = client
        self.lost = lost

    async def eval(self, *arguments: Any) -> Any:
        answer = await self.client.eval(*arguments)
        if self.lost:
            self.lost -= 1
            raise redis.TimeoutError
        return answer


def totals(store: redis.Redis) -> dict[str, float]:
    return {field.decode(): float(value) for field, value in store.hgetall(COUNTERS).items()}


async def test_a_batch_whose_answer_was_lost_is_not_counted_twice(store: redis.Redis, redis_url: str) -> None:
    async with aioredis.from_url(redis_url) as client:
        connection = LosesAnswers(client, lost=2)
        recorder = Recorder(lambda: connection)  # type: ignore[arg-type, return-value]
        recorder.record("default", "r", "orders", 200, 0.25)
        await recorder.flush()
        recorder.record("default", "r", "orders", 200, 0.5)  # meanwhile
        await recorder.flush()
        assert totals(store)["default|r|orders|200"] == 1
        await recorder.flush()
    assert totals(store)["default|r|orders|200"] == 2
    assert totals(store)["default|r|orders|200|sum"] == 0.75


async def test_what_is_counted_while_redis_is_away_arrives_later(store: redis.Redis, redis_url: str) -> None:
    async with aioredis.from_url("redis://127.0.0.1:1") as away, aioredis.from_url(redis_url) as back:
        connection = away
        recorder = Recorder(lambda: connection)
        for _ in range(3):
            recorder.record("default", "r", "orders", 200, 0.0)
            await recorder.flush()
        connection = back
        await recorder.flush()
    assert totals(store)["default|r|orders|200"] == 3


async def test_a_flush_takes_what_was_there_when_it_began(store: redis.Redis, redis_url: str) -> None:
    async with aioredis.from_url(redis_url) as client:
        busy = Recorder(lambda: connection)  # type: ignore[arg-type, return-value]

        class Serves:
            """A worker that serves a request whenever it waits for Redis."""

            asked = 0

            async def eval(self, *arguments: Any) -> Any:
                self.asked += 1
                assert self.asked == 1
                busy.record("default", "r", "orders", 200, 0.0)
                return await client.eval(*arguments)

        connection = Serves()
        busy.record("default", "r", "orders", 200, 0.0)
        await busy.flush()
    assert totals(store)["default|r|orders|200"] == 1
    assert sum(tally.count for tally in busy.tallies.values()) == 1
