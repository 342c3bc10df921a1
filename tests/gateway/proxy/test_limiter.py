"""Token buckets: exact from above over all workers, and cheap for a hot key."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.problem import Problem
from gateway.proxy.buckets import LEASE_SECONDS, Policy
from gateway.proxy.limiter import Call, Limiter
from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import World, a_route
from tests.gateway.proxy.limiters import Worker, a_policy, assert_bound


async def test_it_admits_the_burst_and_then_the_rate(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=10, burst=20))
    assert [await worker.admits() for _ in range(25)].count(True) == 20
    clock.advance(1.0)
    assert [await worker.admits() for _ in range(25)].count(True) == 10


async def test_a_refusal_says_when_to_come_back(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.1, burst=1))
    assert await worker.admits()
    with pytest.raises(Problem) as refusal:
        await worker.limiter.take(worker.bucket, clock())  # type: ignore[misc]
    assert (refusal.value.code, refusal.value.headers["Retry-After"]) == ("rate_limited", "10")
    clock.advance(9.9)
    assert not await worker.admits()
    clock.advance(0.2)
    assert await worker.admits()


async def test_a_hot_key_is_served_from_a_lease(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=10_000, burst=10_000))
    waited = 0
    for _ in range(2000):
        clock.advance(0.001)
        if (token := worker.limiter.take(worker.bucket, clock())) is not None:
            waited += 1
            await token
        elif worker.bucket.drawing:
            await worker.settle()
    assert waited < 10


async def test_no_more_than_the_bound_is_admitted_by_many_workers_whatever_they_do(async_store: aioredis.Redis) -> None:
    """admitted <= burst + rate * T, in every window: demand comes and goes, leases lapse and are given back."""
    rate, burst = 50.0, 60
    chance = random.Random(11)
    for _ in range(6):
        await async_store.flushall()
        clock = ManualClock()
        workers = [Worker(f"w{number}", async_store, clock, a_policy(rate, burst)) for number in range(4)]
        admitted: list[float] = []
        for _ in range(160):
            clock.advance(chance.choice([0.0, 0.01, 0.05, 0.3, LEASE_SECONDS * 1.1]))
            for worker in chance.sample(workers, chance.randint(1, 4)):
                for _ in range(chance.choice([0, 1, 3, 30])):
                    admitted += [clock()] * await worker.admits()
                if chance.random() < 0.3:
                    await worker.limiter.tidy()
            for worker in workers:
                await worker.settle()
        assert_bound(admitted, rate, burst)


async def test_a_bucket_that_gets_busy_while_others_give_back_keeps_its_lease(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two talks about one bucket at once could have Redis forget a lease that is given out from."""
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=10, burst=400))
    elsewhere = Policy(RateLimit("acme", "gold", 10, 400, "key"))
    for policy in (worker.policy, elsewhere):
        bucket = worker.limiter.bucket(policy, "k1", clock())
        answers = await worker.limiter._run([Call(bucket, wanted=40)])
        worker.limiter._adopt(Call(bucket, wanted=40), answers[0], clock())
    clock.advance(LEASE_SECONDS / 2)
    first, second = (worker.limiter._buckets[policy.key("k1")] for policy in (worker.policy, elsewhere))
    talks: list[str] = []
    run = worker.limiter._run

    async def busy_meanwhile(calls: Any) -> Any:
        talks.append(calls[0].bucket.policy.tenant)
        other = second if calls[0].bucket is first else first
        if len(talks) == 1:
            other.touched = clock()
        return await run(calls)

    monkeypatch.setattr(worker.limiter, "_run", busy_meanwhile)
    await worker.limiter.tidy()
    assert len(talks) == 1
    assert sorted((first.left, second.left)) == [0, 40]
    clock.advance(LEASE_SECONDS / 4)
    await worker.limiter.tidy()
    assert (first.left, second.left, len(talks)) == (0, 0, 2)


async def test_an_edit_down_and_up_again_gives_no_second_burst(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    large, small = a_policy(rate=50, burst=1000), a_policy(rate=50, burst=100)
    worker = Worker("w", async_store, clock, large)
    assert [await worker.admits() for _ in range(1100)].count(True) == 980
    worker.policy = small
    assert not await worker.admits()
    assert await async_store.pttl(large.key("k1")) > 15_000


async def test_the_bucket_does_not_refill_what_was_out_on_a_lease(async_store: aioredis.Redis) -> None:
    """A lease used in its last moment must not find its tokens replaced in the next."""
    clock = ManualClock()
    one, two = (Worker(name, async_store, clock, a_policy(rate=100, burst=100)) for name in "ab")
    bucket = one.bucket
    assert (await one.limiter._run([Call(bucket, wanted=40)]))[0][:2] == [0, 40]
    clock.advance(LEASE_SECONDS * 0.99)  # where all forty may still be given out
    clock.advance(LEASE_SECONDS * 0.02)
    assert 60 <= [await two.admits() for _ in range(200)].count(True) <= 62


async def test_several_gateways_share_one_bucket(world: World) -> None:
    """Real gateways, real time: what three of them admit together stays within the bound."""
    rate, burst = 20.0, 30
    limit = RateLimit("default", "gold", rate, burst, "key")
    world.publish(a_route(rate_limits=("gold",)), rate_limits=(limit,))
    await world.service()
    gateways = [await world.gateway() for _ in range(3)]
    for gateway in gateways:
        await gateway.knows("orders", 1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    answers = [
        status
        for _ in range(12)
        for status in await asyncio.gather(*(_status(gateway) for gateway in gateways for _ in range(4)))
    ]
    elapsed = loop.time() - started
    assert burst <= answers.count(200) <= burst + rate * elapsed + 1
    assert answers.count(429) == len(answers) - answers.count(200)


async def _status(gateway: object) -> int:
    return (await gateway.get()).status_code  # type: ignore[attr-defined,no-any-return]


async def test_what_an_idle_worker_holds_comes_back(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    one, two = (Worker(name, async_store, clock, a_policy(rate=0.001, burst=100)) for name in "ab")
    for _ in range(10):
        clock.advance(0.01)
        assert await one.admits()
        await one.settle()
    assert one.bucket.left > 0
    clock.advance(0.5)
    await one.limiter.tidy()
    assert one.bucket.left == 0
    assert sum([await two.admits() for _ in range(100)]) == 90


async def test_a_lost_answer_costs_tokens_but_never_admits_too_many(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.001, burst=10))
    assert await worker.admits()
    bucket = worker.bucket
    await worker.limiter._run([Call(bucket, wanted=4, held=bucket.left)])  # drawn, and never heard of
    bucket.left = 0
    other = Worker("o", async_store, clock, a_policy(rate=0.001, burst=10))
    admitted = 1 + sum([await worker.admits() for _ in range(20)]) + sum([await other.admits() for _ in range(20)])
    assert admitted <= 10


async def test_a_bucket_in_redis_ends_when_it_would_be_full_again(async_store: aioredis.Redis) -> None:
    policy = a_policy(rate=10, burst=20)
    limiter = Limiter(lambda: async_store, "w")
    await limiter.take(limiter.bucket(policy, "k1", 0.0), 0.0)  # type: ignore[misc]
    assert 1000 < await async_store.pttl(policy.key("k1")) < 5000
