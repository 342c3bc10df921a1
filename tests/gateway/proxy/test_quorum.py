"""Breakers of several workers: what each decides alone, and what they decide together."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import redis
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.env import Env
from anumate.lib.problem import Problem
from anumate.lib.redis import connect_async
from anumate_integration_service.breaker import BreakerPolicy, Outcome
from gateway.proxy.guard import Guard, Pass
from gateway.proxy.reports import (
    FORCE,
    FORCE_CHANNEL,
    REPORTS,
    BreakerReport,
    Force,
    WorkerReport,
    key_of_report,
)
from gateway.proxy.table import Upstream
from tests.conftest import wait_until
from tests.registry.live.nodes import cluster

POLICY = BreakerPolicy(minimum_calls=20, failure_rate=0.5, consecutive_failures=0, open_seconds=10.0, half_open_calls=2)


LEASE = "anumate:{g}:trial:default/orders"


class Workers:
    """Guards on one Redis and one clock, which Redis' leases and reports end by too."""

    def __init__(self, client: aioredis.Redis, count: int, policy: BreakerPolicy = POLICY) -> None:
        self.client = client
        self.clock = ManualClock()
        self.guards = [Guard(Env(), f"w{number}", self.clock) for number in range(count)]
        for guard in self.guards:
            guard.adopt(1, [Upstream("default", "orders", breaker=policy)], [("default", "orders")])

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        async for key in self.client.scan_iter("anumate:{g}:*"):
            if (left := await self.client.pttl(key)) > 0:
                await self.client.pexpire(key, max(0, left - round(seconds * 1000)))

    async def exchange(self, workers: Iterable[int] | None = None) -> None:
        for worker in range(len(self.guards)) if workers is None else workers:
            await self.guards[worker].exchange(self.client, self.clock())

    async def second(self, count: int = 1, workers: Iterable[int] | None = None) -> None:
        for _ in range(count):
            await self.pass_time(1.0)
            for _ in range(2):  # each sees what the others reported in this second
                await self.exchange(workers)

    def begin(self, worker: int) -> Pass | None:
        """A call, if the breaker lets it through."""
        try:
            return self.guards[worker].enter("default", "orders", self.clock())
        except Problem:
            return None

    def call(self, worker: int, *, failed: bool) -> bool:
        """Whether the breaker let the call through."""
        if permit := self.begin(worker):
            permit.vote(Outcome.FAILURE if failed else Outcome.SUCCESS, self.clock())
        return permit is not None

    def fail(self, times: int = 30) -> None:
        """Have every worker open by itself."""
        for worker in range(len(self.guards)):
            for _ in range(times):
                self.call(worker, failed=True)

    def states(self) -> list[str]:
        return [guard.report(0.0).breakers[0].state for guard in self.guards]

    async def says(self, worker: str, age: float = 0.0, **about: Any) -> None:
        """A report of another worker, so many seconds ago."""
        report = WorkerReport(worker, 0.0, (BreakerReport(tenant="default", service="orders", **about),))
        life = round((5.0 - age) * 1000)
        await self.client.set(key_of_report(worker), msgspec.json.encode(report), px=life)
        seconds, _ = await self.client.time()  # type: ignore[misc]
        await self.client.zadd(REPORTS, {worker: seconds})


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


async def test_when_redis_is_back_no_trial_begins_before_those_of_each_alone_have_ended(
    async_store: aioredis.Redis,
) -> None:
    workers = Workers(async_store, 3)
    workers.fail()
    await workers.second(8)
    for guard in workers.guards:
        guard._quorum.alone(guard._breakers.values())
    await workers.pass_time(10.0)
    permits = [permit for worker in (0, 1) if (permit := workers.begin(worker))]
    assert len(permits) == 2
    await workers.second()
    assert not any(workers.begin(worker) for worker in range(3))
    for permit in permits:
        permit.vote(Outcome.CANCELLED, workers.clock())
    await workers.second(2)
    assert sum(workers.begin(worker) is not None for worker in range(3) for _ in range(3)) == 2


async def test_it_is_the_same_on_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        client = connect_async(f"redis+cluster://127.0.0.1:{ports[-1]}")
        clock = ManualClock()
        guards = [Guard(Env(), f"w{number}", clock) for number in range(2)]
        for guard in guards:
            guard.adopt(1, [Upstream("default", "orders", breaker=POLICY)], [("default", "orders")])
            for _ in range(20):
                guard.enter("default", "orders", clock()).vote(Outcome.FAILURE, clock())
        clock.advance(10.0)
        for _ in range(2):
            for guard in guards:
                await guard.exchange(client, 1.0)
        assert [guard.workers for guard in guards] == [2, 2]
        assert sorted(guard.report(0.0).breakers[0].state for guard in guards) == ["half_open", "open"]
        await client.aclose()


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


async def test_between_two_reports_no_worker_tries_without_the_lease(async_store: aioredis.Redis) -> None:
    policy = BreakerPolicy(consecutive_failures=3, open_seconds=0.3, half_open_calls=2)
    workers = Workers(async_store, 6, policy)
    await workers.second()
    workers.fail()
    await workers.pass_time(0.4)
    assert not any(workers.begin(worker) for worker in range(6) for _ in range(3))
    await workers.second(2)
    assert sum(workers.begin(worker) is not None for worker in range(6) for _ in range(3)) == 2


async def test_a_breaker_that_begins_while_others_are_heard_needs_the_lease_too(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 2, BreakerPolicy(consecutive_failures=1, open_seconds=0.1))
    await workers.second()
    assert workers.call(0, failed=True)
    await workers.pass_time(0.2)
    assert workers.begin(0) is None


async def test_a_trial_that_takes_long_stays_the_only_one(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 3)
    workers.fail()
    await workers.second(13)
    (trying,) = [worker for worker in range(3) if (permit := workers.begin(worker)) and workers.begin(worker)]
    for _ in range(60):
        await workers.second()
        assert not any(workers.begin(worker) for worker in range(3))
    assert await async_store.pttl(LEASE) > 28_000
    assert workers.states()[trying] == "half_open"
    del permit


async def test_who_loses_the_lease_lets_no_further_trial_through(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 2)
    workers.fail()
    await workers.second(13)
    trying = next(worker for worker in range(2) if (permit := workers.begin(worker)))
    assert permit is not None
    await async_store.set(LEASE, "somebody", px=30_000)
    await workers.second()
    assert not any(workers.begin(worker) for worker in range(2))
    assert workers.states()[trying] == "half_open"  # its trial may still decide
    await async_store.delete(LEASE)
    await workers.second(1, [1 - trying])
    assert workers.begin(1 - trying) is None  # which counts, though its worker has lost the lease
    await async_store.set(LEASE, "somebody", px=30_000)
    await workers.second()
    permit.vote(Outcome.CANCELLED, workers.clock())
    assert workers.states() == ["open", "open"]
    await async_store.delete(LEASE)
    await workers.second()
    assert sum(workers.begin(worker) is not None for worker in range(2) for _ in range(3)) == 2


async def test_nobody_gives_back_the_lease_of_another(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.second(13)
    await async_store.set(LEASE, "somebody", px=30_000)
    for _ in range(2):  # its trials, while it does not know yet
        assert workers.call(0, failed=False)
    assert workers.states() == ["closed"]
    await workers.second(3)
    assert await async_store.get(LEASE) == b"somebody"


async def test_who_ends_gives_the_lease_back(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 2)
    workers.fail()
    await workers.second(13, [0])
    assert await async_store.exists(LEASE)
    await workers.guards[0].retire(async_store)
    await workers.second(1, [1])
    assert workers.begin(1)


async def test_who_has_ended_reports_no_more(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    await workers.second()
    await workers.guards[0].retire(async_store)
    await workers.second()
    assert not await async_store.exists(REPORTS, key_of_report("w0"), LEASE)


async def test_a_word_read_before_a_younger_one_came_changes_nothing(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(async_store, 1)
    workers.call(0, failed=False)
    body = msgspec.json.encode(Force("reset", 8))
    await async_store.hset(FORCE, "default/orders", body)  # type: ignore[misc]
    adopt = workers.guards[0].force

    def late(forces: Any) -> None:
        adopt({("default", "orders"): Force("open", 9)})  # heard while the answer was on its way
        adopt(forces)

    monkeypatch.setattr(workers.guards[0], "force", late)
    await workers.exchange()
    assert workers.states() == ["open"]


HOLDS: Final = """
import asyncio, sys, time
from anumate.lib.env import Env
from anumate.lib.redis import connect_async
from gateway.proxy.guard import Guard

async def main(url, name, hears):
    client = connect_async(url)
    guard = Guard(Env(), name)
    guard.adopt(1, [], [("default", "orders")])
    guard.enter("default", "orders", time.monotonic())
    if hears != "hears":
        async def deaf(redis):
            await asyncio.Event().wait()
        guard._listen = deaf
    job = asyncio.create_task(guard.run(client))
    known = None
    while True:
        [breaker] = guard.report(0.0).breakers
        if (breaker.state, breaker.forced) != known:
            known = breaker.state, breaker.forced
            print(breaker.state, breaker.forced, flush=True)
        await asyncio.sleep(0.005)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("hears", "within"), [("hears", 1.0), ("is deaf", 2.0)])
def test_what_an_operator_wants_reaches_every_process_within_a_second(
    store: redis.Redis, redis_url: str, hears: str, within: float
) -> None:
    """Whoever does not hear it at once reads it with its next report."""
    command = [sys.executable, "-c", HOLDS, redis_url]
    with contextlib.ExitStack() as stack:
        workers = []
        for name in ("a", "b"):
            worker = stack.enter_context(subprocess.Popen([*command, name, hears], stdout=subprocess.PIPE, text=True))
            stack.callback(worker.kill)
            workers.append(worker)
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "closed False\n"
        wait_until(lambda: store.zcard(REPORTS) == 2)
        for generation, (action, said) in enumerate((("open", "open True"), ("reset", "closed False")), 1):
            began = time.monotonic()
            store.hset(FORCE, "default/orders", msgspec.json.encode(Force(action, generation)))  # type: ignore[arg-type]
            store.publish(FORCE_CHANNEL, "default/orders")
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == f"{said}\n"
            assert time.monotonic() - began < within


async def test_a_service_that_is_gone_keeps_no_lease(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.second(13)
    assert await async_store.exists(LEASE)
    workers.guards[0].adopt(2, [], [])
    await workers.second()
    assert not await async_store.exists(LEASE)


async def test_who_has_nothing_to_try_with_lets_others_try(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 4)
    workers.fail()
    for _ in range(60):
        await workers.second()
        workers.call(3, failed=False)
    assert workers.states() == ["closed"] * 4


def upload(workers: Workers, worker: int) -> Pass | None:
    """A call whose client sends next to nothing."""
    if permit := workers.begin(worker):
        began = workers.clock()
        permit.may_wait(lambda now: now - began)
    return permit


async def test_slow_uploads_on_one_worker_keep_no_other_from_trying(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 3)
    workers.fail()
    uploads = []
    for _ in range(60):
        await workers.second()
        while permit := workers.states() != ["closed"] * 3 and upload(workers, 0):
            uploads.append(permit)
        for worker in (1, 2):
            workers.call(worker, failed=False)
    assert len(uploads) > 2
    assert workers.states() == ["closed"] * 3


async def test_a_further_try_of_an_upload_stays_the_same_trial(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.second(13)
    permit = workers.begin(0)
    assert permit is not None
    assert workers.begin(0) is not None
    permit.may_wait(lambda now: 0.6)
    permit.may_wait(lambda now: 0.3)
    assert workers.begin(0) is None
    permit.may_wait(lambda now: 0.2)
    assert workers.begin(0) is not None


async def test_a_worker_that_nobody_waits_for_keeps_the_lease(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.second(13)
    for _ in range(70):
        await workers.second()
        assert workers.states() == ["half_open"]
    assert workers.call(0, failed=False)


async def test_after_a_bad_trial_all_of_them_wait(async_store: aioredis.Redis) -> None:
    policy = BreakerPolicy(consecutive_failures=3, open_seconds=10.0, half_open_calls=1)
    workers = Workers(async_store, 4, policy)
    workers.fail()
    tried = 0
    for _ in range(60):
        await workers.second()
        tried += sum(workers.call(worker, failed=True) for worker in range(4))
    assert 3 <= tried <= 6


@pytest.mark.parametrize("wait", [0.3, 1.5, 5.0, 10.0])
async def test_a_worker_that_can_only_fail_keeps_nobody_from_trying(async_store: aioredis.Redis, wait: float) -> None:
    policy = BreakerPolicy(consecutive_failures=3, open_seconds=wait, half_open_calls=1)
    workers = Workers(async_store, 3, policy)
    workers.fail()
    for _ in range(60):
        await workers.second()
        for worker in range(3):
            workers.call(worker, failed=worker == 0)
    assert workers.states()[1:] == ["closed", "closed"]


async def test_what_was_counted_before_it_closed_does_not_open_it_again(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.call(0, failed=False)
    await workers.says("late", age=3.0, state="closed", calls=30, failures=30)
    breaker = workers.guards[0]._breakers["default", "orders"]
    await workers.pass_time(1.0)
    breaker.force("reset", workers.clock())
    await workers.pass_time(0.5)
    await workers.exchange()
    assert workers.states() == ["closed"]


async def test_who_hears_of_a_reset_late_does_not_have_others_open_again(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 2, BreakerPolicy(minimum_calls=20, consecutive_failures=0))
    await workers.second()
    for _ in range(19):
        workers.call(0, failed=True)
        workers.call(1, failed=False)
    reset = {"action": "reset", "generation": 7}
    await async_store.hset("anumate:{g}:force", "default/orders", msgspec.json.encode(reset))  # type: ignore[misc]
    await workers.exchange([1])
    await workers.pass_time(0.9)
    workers.call(1, failed=True)
    await workers.exchange([0])
    await workers.exchange([1])
    assert workers.states() == ["closed", "closed"]


async def test_a_recovery_from_before_it_opened_closes_nothing(async_store: aioredis.Redis) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.pass_time(2.0)
    await workers.says("gone", age=3.0, state="closed", recovered=True, seconds_in_state=0.5)
    await workers.exchange()
    assert workers.states() == ["open"]
    await workers.says("here", age=0.5, state="closed", recovered=True, seconds_in_state=0.5)
    await workers.exchange()
    assert workers.states() == ["closed"]


async def test_a_breaker_may_begin_while_others_are_asked(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Workers(async_store, 1)
    workers.fail()
    await workers.exchange()
    await workers.pass_time(9.0)
    asked = async_store.execute_command

    async def execute(*command: Any, **options: Any) -> Any:
        workers.guards[0].enter("default", f"new-{len(workers.guards[0]._breakers)}", workers.clock())
        return await asked(*command, **options)

    monkeypatch.setattr(async_store, "execute_command", execute)
    await workers.exchange()
    assert len(workers.guards[0]._breakers) > 1


async def test_a_thousand_open_breakers_ask_at_once(
    async_store: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    guard = Guard(Env(), "w", clock)
    services = [("default", f"s{number}") for number in range(1000)]
    policy = BreakerPolicy(consecutive_failures=1, open_seconds=1.0)
    guard.adopt(1, [Upstream(*pair, breaker=policy) for pair in services], services)
    for pair in services:
        guard.enter(*pair, clock()).vote(Outcome.FAILURE, clock())
    asked = async_store.execute_command
    commands: list[Any] = []

    async def execute(*command: Any, **options: Any) -> Any:
        commands.append(command[0])
        return await asked(*command, **options)

    await guard.exchange(async_store, clock())
    monkeypatch.setattr(async_store, "execute_command", execute)
    await guard.exchange(async_store, clock())
    assert len(commands) < 5
    clock.advance(1.0)
    assert all(guard.enter(*pair, clock()) for pair in services)


async def test_services_of_one_name_in_two_tenants_have_nothing_in_common(async_store: aioredis.Redis) -> None:
    clock = ManualClock()
    pairs = [("default", "orders"), ("acme", "orders")]
    policy = BreakerPolicy(minimum_calls=20, consecutive_failures=0, open_seconds=5.0, half_open_calls=1)
    guards = [Guard(Env(), f"w{number}", clock) for number in range(2)]
    for guard in guards:
        guard.adopt(1, [Upstream(*pair, breaker=policy) for pair in pairs], pairs)
        for tenant, _ in pairs:
            for _ in range(12 if tenant == "default" else 6):
                guard.enter(tenant, "orders", clock()).vote(Outcome.FAILURE, clock())
    clock.advance(1.0)
    for _ in range(2):
        for guard in guards:
            await guard.exchange(async_store, clock())
    for guard in guards:
        assert {each.tenant: each.state for each in guard.report(0.0).breakers} == {"default": "open", "acme": "closed"}


async def test_workers_are_counted_by_the_servers_clock(async_store: aioredis.Redis) -> None:
    guards = [Guard(Env(), f"w{number}") for number in range(3)]
    for guard, wall in zip(guards, (10.0, 5e9, 1.7e9), strict=True):
        await guard.exchange(async_store, wall)
    assert [guard.workers for guard in guards] == [0, 0, 0]  # who begins does not know who begins with it
    await guards[0].exchange(async_store, 10.0)
    assert guards[0].workers == 3
    seconds, _ = await async_store.time()  # type: ignore[misc]
    await async_store.zadd(REPORTS, {"ahead": seconds + 86_400, "gone": seconds - 90})
    await guards[0].exchange(async_store, 10.0)
    assert guards[0].workers == 4
    assert await async_store.zscore(REPORTS, "ahead") <= seconds + 5  # it is counted for a minute, not for a day


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("wait", [0.2, 1.0, 4.0])
async def test_no_more_trials_are_out_than_the_policy_says_whatever_happens(
    async_store: aioredis.Redis, wait: float, seed: int
) -> None:
    """Workers report at times of their own; trials take up to 40 seconds."""
    chance = random.Random(seed)
    policy = BreakerPolicy(consecutive_failures=2, open_seconds=wait, half_open_calls=2, jitter=0.3)
    workers = Workers(async_store, 4, policy)
    await workers.exchange()
    due = [chance.random() for _ in workers.guards]
    calls: list[tuple[float, int, Pass, int, bool]] = []
    trials = 0
    for step in range(600):
        await workers.pass_time(0.1)
        now = workers.clock()
        for worker, at in enumerate(due):
            if step * 0.1 >= at:
                await workers.exchange([worker])
                due[worker] = step * 0.1 + 1.0 + chance.choice([0.0, 0.2, 1.8])
        for call in [call for call in calls if call[0] <= now]:
            calls.remove(call)
            call[2].vote(chance.choices([Outcome.SUCCESS, Outcome.FAILURE, Outcome.CANCELLED], [5, 4, 1])[0], now)
        worker = chance.randrange(4)
        if permit := workers.begin(worker):
            breaker = workers.guards[worker]._breakers["default", "orders"]
            trial = breaker.snapshot(now).state == "half_open"
            trials += trial
            lasts = chance.choice([0.01, 0.5, 3.0, 40.0] if trial else [0.01])
            calls.append((now + lasts, worker, permit, breaker.generation, trial))
        out = [
            call
            for call in calls
            if call[4] and workers.guards[call[1]]._breakers["default", "orders"].generation == call[3]
        ]
        assert len(out) <= policy.half_open_calls
    assert trials > 1
