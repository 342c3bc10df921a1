"""Tokens on credit: nobody waits for them, and the bound holds all the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import LEASE_SECONDS
from gateway.proxy.limiter import AWAY_SECONDS
from tests.gateway.proxy.limiters import Worker, a_policy, assert_bound, sizes_of_calls


async def test_the_bound_holds_though_many_workers_admit_on_credit(async_store: aioredis.Redis) -> None:
    rate, burst, count = 50.0, 500, 5
    chance = random.Random(7)
    for _ in range(3):
        await async_store.flushall()
        clock = ManualClock()
        policy = a_policy(rate, burst)
        workers = [Worker(f"w{number}", async_store, clock, policy, workers=count) for number in range(count)]
        admitted: list[float] = []
        for _ in range(120):
            clock.advance(chance.choice([0.0, 0.01, 0.05, 0.3, LEASE_SECONDS * 1.1]))
            for worker in chance.sample(workers, chance.randint(1, count)):
                for _ in range(chance.choice([0, 1, 1, 3, 60])):
                    admitted += [clock()] * await worker.admits()
            for worker in workers:
                if chance.random() < 0.5:  # of the others, some is owed on
                    await worker.settle()
        assert_bound(admitted, rate, burst)
        assert len(admitted) > burst


async def test_the_first_request_of_a_key_does_not_wait_and_is_counted_all_the_same(
    async_store: aioredis.Redis,
) -> None:
    clock = ManualClock()
    one, two = (Worker(name, async_store, clock, a_policy(rate=0.001, burst=500), workers=2) for name in "ab")
    assert one.limiter.take(one.bucket, clock()) is None
    assert one.bucket.owed == 1
    await one.settle()
    assert (one.bucket.owed, one.bucket.left) == (0, 0)
    # Of the 490 that are in Redis, 489 are left, and two more may be owed.
    assert 489 <= [await two.admits() for _ in range(600)].count(True) <= 491


async def test_nobody_owes_more_than_half_of_its_part(async_store: aioredis.Redis) -> None:
    worker = Worker("w", async_store, ManualClock(), a_policy(rate=10, burst=1000), workers=5)
    assert [worker.limiter.take(worker.bucket, worker.clock()) for _ in range(2)] == [None, None]
    third = worker.limiter.take(worker.bucket, worker.clock())
    assert third is not None
    await third
    assert worker.bucket.owed == 0


async def test_what_comes_to_be_owed_while_redis_is_asked_is_told_next(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("w", async_store, ManualClock(), a_policy(rate=0.001, burst=1000), workers=1)
    run = worker.limiter._run
    told: list[int] = []

    async def while_asked(calls: Any) -> Any:
        if not told:
            assert worker.limiter.take(worker.bucket, worker.clock()) is None
            worker.clock.advance(LEASE_SECONDS)  # so rare a key gets no lease
        told.append(calls[0].owed)
        return await run(calls)

    monkeypatch.setattr(worker.limiter, "_run", while_asked)
    assert worker.limiter.take(worker.bucket, worker.clock()) is None
    await worker.settle()
    assert told == [1, 1]
    assert (worker.bucket.owed, worker.bucket.remaining) == (0, 978)


async def test_what_is_owed_is_told_though_redis_was_away(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", connect_async("redis://127.0.0.1:1"), clock, a_policy(rate=10, burst=1000), workers=1)
    assert worker.limiter.take(worker.bucket, clock()) is None
    await worker.settle()
    assert worker.bucket.owed == 1
    worker.limiter._redis = lambda: async_store
    clock.advance(AWAY_SECONDS)
    assert worker.limiter.take(worker.bucket, clock()) is None
    await worker.settle()
    assert (worker.bucket.owed, worker.bucket.remaining) == (0, 978)


@pytest.mark.parametrize(("burst", "workers"), [(1000, 0), (1000, 11), (499, 1)])
async def test_nothing_is_given_on_credit_that_could_be_too_much(
    async_store: aioredis.Redis, burst: int, workers: int
) -> None:
    worker = Worker("w", async_store, ManualClock(), a_policy(rate=10, burst=burst), workers=workers)
    token = worker.limiter.take(worker.bucket, worker.clock())
    assert token is not None
    await token


async def test_what_nobody_waits_for_is_told_in_one_call(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("w", async_store, ManualClock(), a_policy(rate=10, burst=1000), workers=1)
    calls = sizes_of_calls(worker.limiter, monkeypatch)
    for number in range(40):
        assert worker.limiter.take(worker.limiter.bucket(worker.policy, f"k{number}", 0.0), 0.0) is None
        await asyncio.sleep(0)
    await worker.settle()
    assert calls == [40]
