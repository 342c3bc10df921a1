"""Token buckets: exact from above over all workers, cheap for a hot key, and there when Redis is not."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.problem import Problem
from anumate.lib.redis import connect_async
from gateway.proxy.buckets import LEASE_SECONDS, Bucket, Policy, refusal
from gateway.proxy.limiter import AWAY_SECONDS, BUCKETS, FORGET_SECONDS, Call, Limiter
from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import World, a_route


def a_policy(rate: float = 10.0, burst: int = 20, by: str = "key") -> Policy:
    return Policy(RateLimit("default", "gold", rate, burst, by))


class Worker:
    """A worker's limiter on a clock that it shares with the store's script."""

    def __init__(
        self,
        name: str,
        client: aioredis.Redis,
        clock: ManualClock,
        policy: Policy,
        *,
        workers: int = 0,
        most: int = BUCKETS,
    ) -> None:
        self.clock = clock
        now = lambda: f"{clock() * 1_000_000:.0f}"  # noqa: E731
        self.limiter = Limiter(lambda: client, name, clock, now, lambda: workers, most)
        self.policy = policy

    @property
    def bucket(self) -> Bucket:
        return self.limiter.bucket(self.policy, "k1", self.clock())

    async def admits(self, subject: str = "k1") -> bool:
        bucket = self.limiter.bucket(self.policy, subject, self.clock())
        try:
            if (token := self.limiter.take(bucket, self.clock())) is not None:
                await token
        except Problem as problem:
            return problem.status != 429
        return True

    async def settle(self) -> None:
        while self.limiter._background:
            await asyncio.gather(*self.limiter._background)


def sizes_of_calls(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many buckets each call of Redis is, as they come."""
    sizes: list[int] = []
    run = limiter._run

    async def counted(calls: Any) -> Any:
        sizes.append(len(calls))
        return await run(calls)

    monkeypatch.setattr(limiter, "_run", counted)
    return sizes


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
        _assert_bound(admitted, rate, burst)


def _assert_bound(admitted: list[float], rate: float, burst: int) -> None:
    """Over every window that begins and ends with an admission, by the most that was saved up before."""
    level, last = float(burst), admitted[0]
    for number, moment in enumerate(admitted):
        level = min(burst, level + (moment - last) * rate) - 1
        last = moment
        assert level > -1e-6, f"admission {number} at {moment} is over the bound"


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
        _assert_bound(admitted, rate, burst)
        assert len(admitted) > burst


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
                    _ask(worker, key, chance.choice([1, 3, 30, 60]), admitted[key])
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
            _assert_bound(admitted[key], rate, burst)
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
    early = asyncio.create_task(_ask(one, "k1", 1, admitted))
    await told.wait()
    await _ask(one, "k2", 1, [])
    later = asyncio.create_task(_ask(one, "k1", 2, admitted))
    for _ in range(50):
        await asyncio.sleep(0.001)
    go_on.set()
    await asyncio.gather(early, later)
    clock.advance(LEASE_SECONDS * 0.9)
    await _ask(two, "k1", 150, admitted)
    await _ask(one, "k1", 150, admitted)
    await one.settle()
    _assert_bound(admitted, rate, burst)
    assert len(admitted) > 90


async def test_a_bucket_with_a_lease_keeps_it_though_many_others_are_asked(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    worker = Worker("w", async_store, clock, a_policy(rate=0.001, burst=100), most=2)
    admitted: list[float] = []
    await _ask(worker, "k1", 3, admitted)
    assert worker.bucket.left > 0
    for number in range(20):
        await _ask(worker, f"o{number}", 1, [])
    await worker.settle()
    await _ask(worker, "k1", 150, admitted)
    assert len(admitted) == 100
    clock.advance(2 * LEASE_SECONDS)
    for number in range(5):
        await _ask(worker, f"o{number}", 1, [])
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
    assert [float(await async_store.hget(key, "t") or 980) for key in owing] == [979.0] * len(owing)  # type: ignore[misc]
    await worker.limiter.tidy()
    assert not worker.limiter._buckets
    await away.aclose()


async def _ask(worker: Worker, key: str, times: int, admitted: list[float]) -> None:
    for _ in range(times):
        if await worker.admits(key):
            admitted.append(worker.clock())


def _refuse(limiter: Limiter, buckets: list[Bucket], now: float) -> None:
    raise refusal(buckets[0], now)


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
    assert float(await async_store.hget(bucket.key, "t")) == 979.0  # type: ignore[misc,arg-type]
    await worker.limiter.tidy()
    assert not worker.limiter._buckets


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


async def test_a_bucket_in_redis_ends_when_it_would_be_full_again(async_store: aioredis.Redis) -> None:
    policy = a_policy(rate=10, burst=20)
    limiter = Limiter(lambda: async_store, "w")
    await limiter.take(limiter.bucket(policy, "k1", 0.0), 0.0)  # type: ignore[misc]
    assert 1000 < await async_store.pttl(policy.key("k1")) < 5000


def test_a_header_is_never_a_key_in_redis() -> None:
    policy = a_policy(by="header:x-secret")
    assert "swordfish" not in policy.key("swordfish")
    assert policy.key("a") != policy.key("b")


async def test_the_fields_say_what_is_left(world: World) -> None:
    limit = RateLimit("default", "gold", 1.0, 3, "key")
    world.publish(a_route(rate_limits=("gold",)), rate_limits=(limit,))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answers = [await gateway.get() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"gold";q=3;w=3'
    assert [answer.headers["ratelimit"] for answer in answers] == [f'"gold";r={left};t=1' for left in (2, 1, 0, 0)]
    assert (answers[3].json()["code"], answers[3].headers["retry-after"]) == ("rate_limited", "1")


@pytest.mark.parametrize("by", ["address", "tenant", "route", "header:x-who"])
async def test_a_policy_counts_by_what_it_says(world: World, by: str) -> None:
    limit = RateLimit("default", "gold", 0.001, 1, by)
    world.publish(a_route(rate_limits=("gold",)), a_route("other", rate_limits=("gold",)), rate_limits=(limit,))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    requests = [("/orders", "a"), ("/orders", "a"), ("/other", "a"), ("/orders", "b")]
    statuses = [(await gateway.get(path, headers={"X-Who": who})).status_code for path, who in requests]
    expected = {"route": [200, 429, 200, 429], "header:x-who": [200, 429, 429, 200]}
    assert statuses == expected.get(by, [200, 429, 429, 429])


async def test_a_tenants_policy_named_default_leaves_the_built_in_limit_alone(world: World) -> None:
    generous = RateLimit("default", "default", 1000.0, 1000, "key")
    world.publish(a_route(), a_route("paid", rate_limits=("default",)), rate_limits=(generous,))
    await world.service()
    gateway = await world.gateway(default_rate_limit=1)
    await gateway.knows("orders", 1)
    requests = ["/orders", "/paid", "/orders", "/paid"]
    answers = [await gateway.get(path) for path in requests]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert answers[0].headers["ratelimit-policy"] == '"default";q=1;w=1'


def test_a_policy_field_names_the_window_in_which_the_burst_grows_back() -> None:
    assert a_policy(rate=3, burst=10).policy_field == b'"gold";q=10;w=%d' % math.ceil(10 / 3)


class Several:
    """A worker that asks several buckets at once."""

    def __init__(self, client: aioredis.Redis, clock: ManualClock, *policies: Policy) -> None:
        self.clock = clock
        self.limiter = Limiter(lambda: client, "w", clock, lambda: f"{clock() * 1_000_000:.0f}")
        self.buckets = [self.limiter.bucket(policy, "k1", clock()) for policy in policies]

    async def admits(self) -> bool:
        try:
            if (token := self.limiter.take_all(self.buckets, self.clock())) is not None:
                await token
        except Problem as problem:
            return problem.status != 429
        return True

    async def settle(self) -> None:
        while self.limiter._background:
            await asyncio.gather(*self.limiter._background)

    async def second(self) -> None:
        """What is not used goes back meanwhile."""
        await self.settle()
        self.clock.advance(0.5)
        await self.limiter.tidy()
        self.clock.advance(0.5)


def named(name: str, rate: float, burst: int) -> Policy:
    return Policy(RateLimit("default", name, rate, burst, "key"))


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
