"""Several buckets for one request: a token of each, or none."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from gateway.proxy.buckets import LEASE_SECONDS
from gateway.proxy.limiter import Call
from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import World, a_route
from tests.gateway.proxy.limiters import Several, named, sizes_of_calls


async def test_several_policies_admit_what_all_of_them_admit(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Several(async_store, clock, named("minute", 1.0, 30), named("second", 10.0, 10))
    assert [await worker.admits() for _ in range(20)].count(True) == 10
    await worker.second()
    assert [await worker.admits() for _ in range(20)].count(True) == 10
    await worker.second()
    assert [await worker.admits() for _ in range(20)].count(True) == 10
    await worker.second()
    # What is left of 30 and three seconds' gain: refusals cost nothing.
    assert [await worker.admits() for _ in range(20)].count(True) == 3


async def test_a_request_that_one_bucket_refuses_costs_the_others_nothing(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Several(async_store, clock, named("large", 0.0001, 100), named("small", 0.0001, 1))
    large, small = worker.buckets
    assert await worker.admits()
    for _ in range(30):  # whatever is known here or was forgotten
        small.empty_until = 0.0
        answers = await asyncio.gather(*(worker.admits() for _ in range(5)))
        assert not any(answers)
        await worker.settle()
        clock.advance(1.1 * LEASE_SECONDS)
    assert float(await async_store.hget(large.key, "t") or 0) == pytest.approx(99, abs=0.01)
    assert await async_store.hlen(large.key) == 2  # nothing is out on lease


async def test_many_workers_admit_of_several_buckets_no_more_than_the_tightest_has(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    workers = [Several(async_store, clock, named("a", 0.001, 40), named("b", 0.001, 25)) for _ in range(4)]
    for number, worker in enumerate(workers):
        worker.limiter._worker = f"w{number}"
    admitted = 0
    for _ in range(8):
        answers = await asyncio.gather(*(worker.admits() for worker in workers for _ in range(5)))
        admitted += answers.count(True)
        clock.advance(0.5)
        await asyncio.gather(*(worker.limiter.tidy() for worker in workers))
        clock.advance(0.5)
    assert admitted == 25


async def test_without_redis_too_a_refusal_costs_the_others_nothing() -> None:
    clock = ManualClock()
    away = aioredis.Redis.from_url("redis://127.0.0.1:1")
    worker = Several(away, clock, named("large", 0.001, 5), named("small", 0.001, 1))
    large, small = worker.buckets
    large.share, small.share = 5.0, 1.0
    assert await worker.admits()
    assert not any([await worker.admits() for _ in range(3)])
    assert (round(large.share, 1), round(small.share, 1)) == (4.0, 0.0)
    await away.aclose()


async def test_several_buckets_are_asked_in_one_call(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    worker = Several(async_store, clock, *(named(f"p{number}", 10.0, 10) for number in range(3)))
    calls = sizes_of_calls(worker.limiter, monkeypatch)
    assert await worker.admits()
    assert calls == [3]


async def test_callers_of_one_moment_share_a_call_of_redis(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    limiter = Several(async_store, clock).limiter
    policy = named("gold", 10.0, 10)
    calls = sizes_of_calls(limiter, monkeypatch)
    waits = [limiter.take(limiter.bucket(policy, f"k{number}", clock()), clock()) for number in range(150)]
    await asyncio.gather(*(wait for wait in waits if wait is not None))
    assert sorted(calls) == [22, 64, 64]


async def test_a_token_of_a_bucket_that_has_some_is_put_back_when_another_has_none(
    async_store: aioredis.Redis,
) -> None:
    clock = ManualClock()
    worker = Several(async_store, clock, named("large", 100.0, 100), named("small", 0.001, 1))
    large, small = worker.buckets
    assert await worker.admits()
    await worker.limiter._run([Call(large, wanted=40)])
    large.left = large.leased = 40
    large.ends = clock() + LEASE_SECONDS
    small.empty_until = 0.0  # Redis will say so again
    assert not await worker.admits()
    assert large.left == 40


async def test_the_answer_names_all_policies_and_tells_of_the_tightest(world: World) -> None:
    await world.service()
    limits = (RateLimit("default", "wide", 100.0, 100, "key"), RateLimit("default", "tight", 1.0, 5, "tenant"))
    world.publish(a_route(rate_limits=("wide", "tight")), rate_limits=limits)
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.get()
    assert answer.headers["ratelimit-policy"] == '"wide";q=100;w=1, "tight";q=5;w=5'
    assert answer.headers["ratelimit"].startswith('"tight";r=4;')
    statuses = [(await gateway.get()).status_code for _ in range(8)]
    assert statuses.count(200) in (4, 5)
    assert statuses[-1] == 429
