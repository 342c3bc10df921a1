"""Limits while Redis is away: each worker serves its share, and no new burst."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import LEASE_SECONDS, Policy
from gateway.proxy.limiter import AWAY_SECONDS, FORGET_SECONDS, Call, Limiter
from tests.gateway.proxy.limiters import Worker, a_policy, ask, assert_bound


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


async def test_a_slow_policy_admits_whom_it_does_not_know_once_while_redis_is_away() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=0.001, burst=1))
    assert [await worker.admits() for _ in range(3)] == [True, False, False]
    clock.advance(FORGET_SECONDS + 1)
    await worker.limiter.tidy()
    assert not await worker.admits()
    clock.advance(1000)
    assert await worker.admits()
    clock.advance(2000)
    await worker.limiter.tidy()
    await worker.limiter.tidy()
    assert not worker.limiter._buckets  # what it owed was gained long ago
    await nowhere.aclose()


async def test_nobody_is_forgotten_for_others_while_redis_is_away() -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", nowhere, clock, a_policy(rate=0.001, burst=1, by="header:x-client"), most=10)
    admitted = 0
    for turn in range(5):
        admitted += await worker.admits("k1")
        for number in range(40):
            await worker.admits(f"other {turn} {number}")
        await worker.settle()
        assert len(worker.limiter._buckets) <= 15
    assert admitted == 1
    await nowhere.aclose()


@pytest.mark.parametrize(("count", "most"), [(1, 1), (3, 2)])
async def test_no_more_than_the_bound_is_admitted_however_often_redis_goes_away(
    async_store: aioredis.Redis, count: int, most: int
) -> None:
    rate, burst = 2.0, 100
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    workers = [
        Worker(f"w{number}", async_store, clock, a_policy(rate, burst), workers=count) for number in range(count)
    ]
    admitted: list[float] = []

    async def all_ask(times: int) -> None:
        for _ in range(times):
            for worker in workers:
                await ask(worker, "k1", 1, admitted)
        for worker in workers:
            await worker.settle()

    for turn in range(12):
        _connect(workers, async_store)
        await all_ask(1 if turn < 2 else 40)
        _connect(workers, nowhere)
        await all_ask(120)
        clock.advance(AWAY_SECONDS * 1.6)
    assert len(admitted) > 0.9 * burst
    # Several do not know what others took since they asked: no more than another burst, and not each time anew.
    assert_bound(admitted, rate, most * burst)
    await nowhere.aclose()


@pytest.mark.parametrize("burst", [1, 40, 500])
async def test_one_worker_keeps_to_the_bound_whatever_becomes_of_its_messages(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch, burst: int
) -> None:
    """They get lost before or after they ran, or run twice; outages are short and long."""
    rate, chance = 5.0, random.Random(burst)
    run = Limiter._run

    async def odd(limiter: Limiter, calls: Any) -> Any:
        fate = chance.random() if away else 1.0
        if fate < 0.5:
            raise OSError("away")
        answers = await run(limiter, calls)
        if fate < 0.9:
            limiter._away_since = since  # nobody knows that it ran
            raise TimeoutError
        return answers

    monkeypatch.setattr(Limiter, "_run", odd)
    for _ in range(5):
        await async_store.flushall()
        clock = ManualClock()
        worker = Worker("w", async_store, clock, a_policy(rate, burst), workers=1)
        admitted: list[float] = []
        for _ in range(150):
            away, since = chance.random() < 0.7, worker.limiter._away_since
            clock.advance(chance.choice([0.0, 0.01, 0.3, AWAY_SECONDS, 2.5, 20.0]))
            await ask(worker, "k1", chance.choice([1, 3, 60]), admitted)
            await worker.settle()
            if chance.random() < 0.3:
                await worker.limiter.tidy()
                await worker.settle()
        assert_bound(admitted, rate, burst)


async def three_that_know_it(
    store: aioredis.Redis, clock: ManualClock, policy: Policy, admitted: list[float]
) -> list[Worker]:
    """Three workers that know of each other, each of which has asked for the bucket before."""
    workers = [Worker(f"w{number}", store, clock, policy, workers=3) for number in range(3)]
    for worker in workers:
        await ask(worker, "k1", 1, admitted)
    return workers


async def test_workers_that_knew_of_too_much_pay_it_back(async_store: aioredis.Redis) -> None:
    rate, burst = 2.0, 90
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    admitted: list[float] = []
    workers = await three_that_know_it(async_store, clock, a_policy(rate, burst), admitted)
    for _ in range(20):
        _connect(workers, async_store)
        await ask(workers[0], "k1", 100, admitted)  # the others do not know of it
        for worker in workers:
            await worker.limiter.tidy()
            await worker.settle()
        _connect(workers, nowhere)
        for worker in workers:
            await ask(worker, "k1", 100, admitted)
            await worker.settle()
        clock.advance(AWAY_SECONDS * 1.6)
    assert_bound(admitted, rate, 2 * burst)
    assert len(admitted) < 1.7 * burst + rate * clock()
    await nowhere.aclose()


async def test_after_a_long_outage_nobody_is_locked_out(async_store: aioredis.Redis) -> None:
    rate, burst = 10.0, 30
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    admitted: list[float] = []
    workers = await three_that_know_it(async_store, clock, a_policy(rate, burst), admitted)
    _connect(workers, nowhere)
    for _ in range(600):
        for worker in workers:
            await ask(worker, "k1", 2, admitted)
        clock.advance(0.1)
    assert len(admitted) > 0.9 * rate * 60
    _connect(workers, async_store)
    clock.advance(AWAY_SECONDS)
    for worker in workers:
        await worker.limiter.tidy()
        await worker.settle()
    clock.advance(0.5)
    before = len(admitted)
    await ask(workers[0], "k1", 20, admitted)
    assert len(admitted) > before
    assert_bound(admitted, rate, burst + 3)
    await nowhere.aclose()


@pytest.mark.parametrize("ran", [True, False])
async def test_what_is_owed_counts_once_though_the_answer_is_lost(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch, ran: bool
) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.0001, burst=100))
    worker.bucket.owed = 7.0
    run = worker.limiter._run

    async def lost(calls: Any) -> Any:
        if ran:
            await run([call._replace(needed=0, wanted=0) for call in calls])
        else:
            worker.bucket.serial = worker.limiter._serial = worker.limiter._serial + 1
        raise TimeoutError

    for _ in range(3):
        monkeypatch.setattr(worker.limiter, "_run", lost)
        await worker.admits()  # of its own share, which it owes too
        clock.advance(AWAY_SECONDS)
        worker.bucket.owed += 2
    monkeypatch.setattr(worker.limiter, "_run", run)
    owed = worker.bucket.owed
    assert await worker.admits()
    await worker.settle()
    assert worker.bucket.owed == 0
    assert float(await async_store.hget(worker.bucket.key, "t")) == pytest.approx(99 - owed, abs=0.1)  # type: ignore[misc,arg-type]


async def test_a_message_that_comes_late_changes_nothing(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.0001, burst=100))
    bucket = worker.bucket
    await worker.limiter._run([Call(bucket, wanted=20, owed=5.0)])
    before = await async_store.hgetall(bucket.key)  # type: ignore[misc]
    bucket.serial, worker.limiter._serial = 0, 0
    for _ in range(2):  # it was sent again, too
        worker.limiter._serial = 0
        assert await worker.limiter._run([Call(bucket, needed=3, wanted=20, owed=5.0)]) == [[0, 0, 0, 75, 0, 0]]
    assert await async_store.hgetall(bucket.key) == before  # type: ignore[misc]


async def test_what_was_given_out_is_told_though_nobody_asks_again(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    nowhere = connect_async("redis://127.0.0.1:1")
    worker = Worker("w", async_store, clock, a_policy(rate=0.001, burst=100))
    assert await worker.admits()
    _connect([worker], nowhere)
    clock.advance(LEASE_SECONDS)
    assert [await worker.admits() for _ in range(10)] == [True] * 10
    for client in (nowhere, async_store):
        _connect([worker], client)
        for _ in range(2):
            clock.advance(AWAY_SECONDS)
            await worker.limiter.tidy()
            await worker.settle()
    assert worker.bucket.owed == 0
    assert float(await async_store.hget(worker.bucket.key, "t")) == pytest.approx(89, abs=0.1)  # type: ignore[misc,arg-type]
    await nowhere.aclose()


def _connect(workers: list[Worker], client: aioredis.Redis) -> None:
    for worker in workers:
        worker.limiter._redis = lambda: client


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
