"""Limits while Redis is away: each worker serves its share, and no new burst."""

from __future__ import annotations

import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import LEASE_SECONDS
from gateway.proxy.limiter import FORGET_SECONDS
from tests.gateway.proxy.limiters import Worker, a_policy


async def test_without_redis_each_worker_serves_its_share() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=10, burst=20))
    worker.bucket.peers = 1
    assert [await worker.admits() for _ in range(5)].count(True) == 1  # no new burst out of nothing
    admitted = 0
    for _ in range(100):
        clock.advance(0.1)
        admitted += await worker.admits()
    assert 45 <= admitted <= 51  # half of 10 a second, for 10 seconds
    await nowhere.aclose()


async def test_an_old_bucket_gets_no_new_burst_when_redis_goes_away() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=10, burst=20))
    assert worker.bucket
    clock.advance(50)
    assert [await worker.admits() for _ in range(30)].count(True) == 1
    await nowhere.aclose()


async def test_what_was_left_is_served_on_when_redis_goes_away(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    workers = [Worker(name, async_store, clock, a_policy(rate=10, burst=20)) for name in "ab"]
    for worker in (*workers, *workers):
        assert await worker.admits()
    for worker in workers:
        worker.limiter._redis = lambda: nowhere
        clock.advance(LEASE_SECONDS)
    admitted = [await worker.admits() for _ in range(30) for worker in workers].count(True)
    assert 10 <= admitted <= 20
    await nowhere.aclose()


async def test_a_slow_policy_admits_those_it_forgot_while_redis_is_away() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=0.001, burst=1))
    for _ in range(2):
        assert [await worker.admits() for _ in range(3)] == [True, False, False]
        clock.advance(FORGET_SECONDS + 1)
        await worker.limiter.tidy()
    await nowhere.aclose()


async def test_rare_requests_gain_their_share_though_each_of_them_finds_redis_away() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=0.2, burst=1))
    admitted = []
    for _ in range(5):
        admitted.append(await worker.admits())
        clock.advance(3)
    assert admitted == [True, False, True, False, True]
    await nowhere.aclose()


async def test_refusals_end_soon_after_redis_is_back(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=0.001, burst=5))
    assert [await worker.admits() for _ in range(3)] == [True, False, False]
    worker.limiter._redis = lambda: async_store
    clock.advance(LEASE_SECONDS + 0.1)
    assert await worker.admits()
    await nowhere.aclose()
