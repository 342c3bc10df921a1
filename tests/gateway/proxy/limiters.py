"""Limiters of workers on one clock, for tests of token buckets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as aioredis

from anumate.lib.clock import ManualClock
from anumate.lib.problem import Problem
from gateway.proxy.buckets import Bucket, Policy
from gateway.proxy.limiter import BUCKETS, Limiter
from gateway.proxy.table import RateLimit


def a_policy(rate: float = 10.0, burst: int = 20, by: str = "key") -> Policy:
    return Policy(RateLimit("default", "gold", rate, burst, by))


async def granted(ask: Callable[[], Awaitable[None] | None]) -> bool:
    """Whether what is asked for is given, at once or later."""
    try:
        if (token := ask()) is not None:
            await token
    except Problem as problem:
        return problem.status != 429
    return True


async def settle(limiter: Limiter) -> None:
    """Until it talks to Redis no more."""
    while limiter._background:
        await asyncio.gather(*limiter._background)


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
        return await granted(lambda: self.limiter.take(bucket, self.clock()))

    async def settle(self) -> None:
        await settle(self.limiter)


def sizes_of_calls(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many buckets each call of Redis is, as they come."""
    sizes: list[int] = []
    run = limiter._run

    async def counted(calls: Any) -> Any:
        sizes.append(len(calls))
        return await run(calls)

    monkeypatch.setattr(limiter, "_run", counted)
    return sizes


def assert_bound(admitted: list[float], rate: float, burst: int) -> None:
    """Over every window that begins and ends with an admission, by the most that was saved up before."""
    level, last = float(burst), admitted[0]
    for number, moment in enumerate(admitted):
        level = min(burst, level + (moment - last) * rate) - 1
        last = moment
        assert level > -1e-6, f"admission {number} at {moment} is over the bound"


async def ask(worker: Worker, key: str, times: int, admitted: list[float]) -> None:
    for _ in range(times):
        if await worker.admits(key):
            admitted.append(worker.clock())


class Several:
    """A worker that asks several buckets at once."""

    def __init__(self, client: aioredis.Redis, clock: ManualClock, *policies: Policy) -> None:
        self.clock = clock
        self.limiter = Limiter(lambda: client, "w", clock, lambda: f"{clock() * 1_000_000:.0f}")
        self.buckets = [self.limiter.bucket(policy, "k1", clock()) for policy in policies]

    async def admits(self) -> bool:
        return await granted(lambda: self.limiter.take_all(self.buckets, self.clock()))

    async def settle(self) -> None:
        await settle(self.limiter)

    async def second(self) -> None:
        """What is not used goes back meanwhile."""
        await self.settle()
        self.clock.advance(0.5)
        await self.limiter.tidy()
        self.clock.advance(0.5)


def named(name: str, rate: float, burst: int) -> Policy:
    return Policy(RateLimit("default", name, rate, burst, "key"))
