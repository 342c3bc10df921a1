"""Which buckets a worker keeps, and which it may forget without a token lost or given twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import LEASE_SECONDS, Bucket, refusal
from gateway.proxy.limiter import AWAY_SECONDS, FORGET_SECONDS, Limiter
from tests.gateway.proxy.limiters import Worker, a_policy, ask, assert_bound


@pytest.mark.parametrize("burst", [40, 500])
async def test_the_bound_holds_of_more_keys_than_a_worker_keeps(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch, burst: int
) -> None:
    """Talks with Redis overtake each other, some fail, and whoever was told of may be forgotten meanwhile."""
    rate, count, keys = 50.0, 2, "abcdef"
    chance = random.Random(3)
    run = Limiter._run

    async def odd(limiter: Limiter, calls: Any) -> Any:
        for _ in range(chance.choice([0, 0, 1, 5, 30])):
            await asyncio.sleep(0)
        if chance.random() < 0.01:
            raise OSError("away")
        answers = await run(limiter, calls)
        for _ in range(chance.choice([0, 0, 1, 5, 30])):
            await asyncio.sleep(0)
        return answers

    monkeypatch.setattr(Limiter, "_run", odd)
    monkeypatch.setattr(Limiter, "_take_from_shares", _refuse)  # what holds while Redis is away is not told here
    for _ in range(2):
        await async_store.flushall()
        clock = ManualClock()
        policy = a_policy(rate, burst)
        workers = [Worker(f"w{number}", async_store, clock, policy, workers=count, most=3) for number in range(count)]
        admitted: dict[str, list[float]] = {key: [] for key in keys}

        for _ in range(50):
            clock.advance(chance.choice([0.0, 0.01, 0.05, 0.3, LEASE_SECONDS * 0.9, LEASE_SECONDS * 1.1]))
            await asyncio.gather(
                *(
                    ask(worker, key, chance.choice([1, 3, 30, 60]), admitted[key])
                    for worker in workers
                    for key in chance.choices(keys, k=chance.randint(1, 8))
                )
            )
            for worker in workers:
                if chance.random() < 0.3:
                    await worker.limiter.tidy()
                if chance.random() < 0.5:
                    await worker.settle()
        for key in keys:
            assert_bound(admitted[key], rate, burst)
            assert len(admitted[key]) > burst


async def test_a_bucket_that_is_talked_about_is_not_forgotten(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second one by its name would talk to Redis beside it, and Redis forget a lease that is given out from."""
    clock, rate, burst = ManualClock(), 100.0, 100
    one = Worker("a", async_store, clock, a_policy(rate, burst), most=1)
    two = Worker("b", async_store, clock, a_policy(rate, burst))
    run, told, go_on = one.limiter._run, asyncio.Event(), asyncio.Event()

    async def first_held_up(calls: Any) -> Any:
        if not told.is_set():
            told.set()
            await go_on.wait()
        return await run(calls)

    monkeypatch.setattr(one.limiter, "_run", first_held_up)
    admitted: list[float] = []
    early = asyncio.create_task(ask(one, "k1", 1, admitted))
    await told.wait()
    await ask(one, "k2", 1, [])
    later = asyncio.create_task(ask(one, "k1", 2, admitted))
    for _ in range(50):
        await asyncio.sleep(0.001)
    go_on.set()
    await asyncio.gather(early, later)
    clock.advance(LEASE_SECONDS * 0.9)
    await ask(two, "k1", 150, admitted)
    await ask(one, "k1", 150, admitted)
    await one.settle()
    assert_bound(admitted, rate, burst)
    assert len(admitted) > 90


async def test_a_bucket_with_a_lease_keeps_it_though_many_others_are_asked(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.001, burst=100), most=2)
    admitted: list[float] = []
    await ask(worker, "k1", 3, admitted)
    assert worker.bucket.left > 0
    for number in range(20):
        await ask(worker, f"o{number}", 1, [])
    await worker.settle()
    await ask(worker, "k1", 150, admitted)
    assert len(admitted) == 100
    clock.advance(2 * LEASE_SECONDS)
    for number in range(5):
        await ask(worker, f"o{number}", 1, [])
    assert len(worker.limiter._buckets) == 2


async def test_a_bucket_that_owes_is_kept_and_no_more_is_given_on_credit_than_can_be_kept(
    async_store: aioredis.Redis,
) -> None:
    clock = ManualClock()
    away = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", away, clock, a_policy(rate=0.001, burst=1000), workers=1, most=2)
    for number in range(40):  # each finds out anew that Redis is away
        await worker.admits(f"k{number}")
        await worker.settle()
        clock.advance(AWAY_SECONDS)
    owing = [bucket.key for bucket in worker.limiter._buckets.values() if bucket.owed]
    assert 2 <= len(owing) <= len(worker.limiter._buckets) <= 4
    worker.limiter._redis = lambda: async_store
    await worker.admits("other")
    await worker.settle()
    clock.advance(FORGET_SECONDS + 1)
    await worker.limiter.tidy()
    await worker.settle()
    assert [float(await async_store.hget(key, "t") or 980) for key in owing] == pytest.approx(
        [979.0] * len(owing), abs=0.1
    )  # type: ignore[misc]
    await worker.limiter.tidy()
    assert not worker.limiter._buckets
    await away.aclose()


def _refuse(limiter: Limiter, buckets: list[Bucket], now: float) -> None:
    raise refusal(buckets[0], now)


async def test_a_bucket_that_owes_is_not_forgotten_before_redis_knows(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", connect_async("redis://127.0.0.1:1"), clock, a_policy(rate=0.001, burst=1000), workers=1)
    assert worker.limiter.take(worker.bucket, clock()) is None
    await worker.settle()
    worker.limiter._redis = lambda: async_store
    clock.advance(FORGET_SECONDS + 1)
    await worker.limiter.tidy()
    (bucket,) = worker.limiter._buckets.values()
    await worker.settle()
    assert bucket.owed == 0
    assert float(await async_store.hget(bucket.key, "t")) == pytest.approx(979.0, abs=0.1)  # type: ignore[misc,arg-type]
    await worker.limiter.tidy()
    assert not worker.limiter._buckets


async def test_an_unused_bucket_is_forgotten(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy())
    await worker.admits()
    clock.advance(1000)
    await worker.limiter.tidy()
    await worker.limiter.tidy()
    assert not worker.limiter._buckets


def test_a_worker_keeps_no_more_buckets_than_its_bound_and_those_in_use() -> None:
    limiter = Limiter(lambda: connect_async("redis://127.0.0.1:1"), "w", ManualClock(), most=3)
    policy = a_policy(by="header:x-who")
    used = limiter.bucket(policy, "used", 0.0)
    for number in range(10):
        limiter.bucket(policy, f"{number}" * 10_000, 0.0)
        assert limiter.bucket(policy, "used", 0.0) is used
    assert len(limiter._buckets) == 3
    assert max(len(key) for key in limiter._buckets) < 100
