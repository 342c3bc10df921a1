"""Breakers of several workers: what each decides alone, and what they decide together."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.env import Env
from anumate.lib.problem import Problem
from anumate_integration_service.breaker import BreakerPolicy, Outcome
from gateway.proxy.guard import Guard
from gateway.proxy.table import Upstream

POLICY = BreakerPolicy(minimum_calls=20, failure_rate=0.5, consecutive_failures=0, open_seconds=10.0, half_open_calls=2)


class Workers:
    """Guards on one Redis and one clock."""

    def __init__(self, client: aioredis.Redis, count: int, policy: BreakerPolicy = POLICY) -> None:
        self.client = client
        self.clock = ManualClock()
        self.guards = [Guard(Env(), f"w{number}", self.clock) for number in range(count)]
        for guard in self.guards:
            guard.adopt(1, [Upstream("default", "orders", breaker=policy)], [("default", "orders")])

    async def second(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(1.0)
            for _ in range(2):  # each sees what the others reported in this second
                for guard in self.guards:
                    await guard.exchange(self.client, self.clock())

    def call(self, worker: int, *, failed: bool) -> bool:
        """Whether the breaker let the call through."""
        now = self.clock()
        try:
            permit = self.guards[worker].enter("default", "orders", now)
        except Problem:
            return False
        permit.vote(Outcome.FAILURE if failed else Outcome.SUCCESS, now)
        return True

    def states(self) -> list[str]:
        return [guard.report(0.0).breakers[0].state for guard in self.guards]


async def test_quiet_workers_add_up(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 4)
    for worker in range(4):
        for _ in range(6):  # each far from the twenty that a verdict needs
            workers.call(worker, failed=True)
    assert workers.states() == ["closed"] * 4
    await workers.second()
    assert workers.states() == ["open"] * 4
    reason = workers.guards[3].report(0.0).breakers[0].reason
    assert "together" in reason


async def test_one_workers_bad_luck_opens_nothing_for_others(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 3)
    for _ in range(25):
        workers.call(0, failed=True)
    for worker in (1, 2):
        for _ in range(40):
            workers.call(worker, failed=False)
    await workers.second(2)
    assert workers.states() == ["open", "closed", "closed"]


async def test_one_worker_tries_for_all_and_all_close_when_it_goes_well(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 4)
    for worker in range(4):
        for _ in range(6):
            workers.call(worker, failed=True)
    await workers.second(1)
    await workers.second(11)
    through = [worker for worker in range(4) for _ in range(5) if workers.call(worker, failed=False)]
    # The two trials, and what came after them on the worker that closed by them.
    (trying,) = set(through)
    assert workers.states()[trying] == "closed"
    assert [state for number, state in enumerate(workers.states()) if number != trying] == ["open"] * 3
    await workers.second()
    assert workers.states() == ["closed"] * 4


async def test_a_bad_trial_keeps_all_of_them_open(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 3)
    for worker in range(3):
        for _ in range(8):
            workers.call(worker, failed=True)
    await workers.second(12)
    assert sum(workers.call(worker, failed=True) for worker in range(3) for _ in range(3)) == 1
    await workers.second(2)
    assert workers.states().count("closed") == 0
    assert sum(workers.call(worker, failed=True) for worker in range(3)) <= 1


async def test_a_worker_that_dies_with_the_lease_of_the_trials_holds_nobody_up_for_long(
    async_store: aioredis.Redis,
) -> None:
    workers = Workers(async_store, 2)
    for worker in range(2):
        for _ in range(12):
            workers.call(worker, failed=True)
    await workers.second(12)
    keys = [key async for key in async_store.scan_iter("anumate:{g}:trial:*")]
    assert len(keys) == 1
    assert 0 < await async_store.pttl(keys[0]) <= 30_000
    await async_store.delete(keys[0])  # as time would
    workers.guards.pop(0)
    await workers.second()
    assert workers.call(0, failed=False)


async def test_without_redis_each_decides_for_itself(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 2)
    for worker in range(2):
        for _ in range(12):
            workers.call(worker, failed=True)
    await workers.second(12)
    for guard in workers.guards:
        guard._quorum.alone(guard._breakers.values())
    assert [workers.call(worker, failed=False) for worker in range(2)] == [True, True]


@pytest.mark.parametrize("action", ["open", "close"])
async def test_what_an_operator_holds_stays(async_store: aioredis.Redis, action: str) -> None:
    workers = Workers(async_store, 2)
    workers.call(0, failed=False)
    breaker = workers.guards[0]._breakers["default", "orders"]
    breaker.force(action, workers.clock())  # type: ignore[arg-type]
    for _ in range(30):
        workers.call(1, failed=True)
    await workers.second(15)
    assert workers.states()[0] == {"open": "open", "close": "closed"}[action]
