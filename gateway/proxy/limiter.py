"""Token buckets that hold over all workers and nodes, at the price of a local subtraction for a hot key.

The bucket is in Redis (`bucket.lua`, which says why the bound holds). A worker draws a short lease in advance, as large
as its own demand of the last moments, and gives tokens out from it; a request waits for Redis only when the lease is
empty. While the bucket is empty, refusals are local too. When Redis is away each worker serves its share by itself, of
the rate and of what was left in the bucket, the share being that of the peers it last saw.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError

from anumate.lib import clock
from anumate.lib.problem import Problem
from gateway.proxy.table import RateLimit

logger = logging.getLogger("anumate.limiter")

LEASE_SECONDS: Final = 1.0
AHEAD_SECONDS: Final = 0.25
"""A lease is what this worker is likely to give out in this time."""
ANSWER_SECONDS: Final = 0.5
"""How long a request waits for Redis before the worker's own share decides."""
AWAY_SECONDS: Final = 1.0
"""How long Redis is left alone after it failed to answer."""
FORGET_SECONDS: Final = 60.0
BUCKETS: Final = 50_000
"""The most that a worker keeps: clients may name as many as they like, where a policy counts by a header."""
TICK_SECONDS: Final = 0.25


class Policy:
    """A rate-limit policy, compiled: what every bucket of it shares."""

    __slots__ = ("burst", "by", "header", "name", "policy_field", "prefix", "rate", "wait_field")

    def __init__(self, limit: RateLimit, *, built_in: bool = False) -> None:
        self.rate = limit.rate
        self.burst = limit.burst
        self.by = limit.by
        self.header = limit.by.removeprefix("header:").lower().encode() if limit.by.startswith("header:") else b""
        self.name = limit.name.encode()
        # Its tenant's hash tag keeps the buckets of one request on one node of a cluster.
        # What is built in is counted under an empty name, which no tenant can give to a policy of its own.
        self.prefix = f"anumate:rl:{{{limit.tenant}}}:{'' if built_in else limit.name}:"
        window = max(1, math.ceil(limit.burst / limit.rate))
        self.policy_field = b'"%b";q=%d;w=%d' % (self.name, limit.burst, window)
        self.wait_field = max(1, math.ceil(1 / limit.rate))

    def key(self, subject: str) -> str:
        """The bucket's name in Redis. What a client may choose freely is digested: bounded, and never a secret."""
        if self.header:
            subject = hashlib.sha256(subject.encode()).hexdigest()[:32]
        return self.prefix + subject


class Bucket:
    """What this worker knows of one bucket."""

    __slots__ = (
        "drawing",
        "drawn_at",
        "empty_until",
        "ends",
        "granted",
        "key",
        "leased",
        "left",
        "peers",
        "policy",
        "remaining",
        "serial",
        "share",
        "share_at",
        "taken",
        "token_at",
        "touched",
        "waiting",
    )

    def __init__(self, policy: Policy, key: str, now: float) -> None:
        self.policy = policy
        self.key = key
        self.left = 0
        self.leased = 0
        self.granted = 0
        self.serial = 0
        self.ends = 0.0
        self.taken = 0
        self.waiting = 0
        self.drawn_at = self.touched = now
        self.empty_until = self.token_at = 0.0
        self.remaining = policy.burst
        self.peers = 0
        self.share = 1.0  # or a slow policy would never admit whom this worker does not know yet
        self.share_at = now
        self.drawing: asyncio.Task[None] | None = None

    def fields(self, now: float) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = self.policy
        known = self.left + self.remaining + int((now - self.drawn_at) * policy.rate)
        remaining = 0 if now < self.empty_until else min(known, policy.burst)
        value = b'"%b";r=%d;t=%d' % (policy.name, remaining, policy.wait_field)
        return [(b"ratelimit", value), (b"ratelimit-policy", policy.policy_field)]


class Limiter:
    """This worker's buckets. `take` is the hot path; `run` gives back what idle buckets hold and forgets them."""

    def __init__(
        self,
        redis: Callable[[], aioredis.Redis],
        worker: str,
        monotonic: clock.Clock = clock.monotonic,
        store_time: Callable[[], str] = str,
    ) -> None:
        self._redis = redis
        self._worker = worker
        self._now = monotonic
        self._store_time = store_time  # microseconds as text; empty for the server's own
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()  # who was not asked for longest comes first
        self._away_until = 0.0
        self._away_since: float | None = None
        self._serial = 0
        self._background: set[asyncio.Task[None]] = set()

    def bucket(self, policy: Policy, subject: str, now: float) -> Bucket:
        key = policy.key(subject)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= BUCKETS:
                self._buckets.popitem(last=False)  # what it held on lease lapses in Redis by itself
            bucket = self._buckets[key] = Bucket(policy, key, now)
            return bucket
        self._buckets.move_to_end(key)
        if bucket.policy is not policy:
            bucket.policy = policy  # changed by a publish; what is held of the old one ends soon by itself
            bucket.empty_until = 0.0
        return bucket

    def take(self, bucket: Bucket, now: float) -> Awaitable[None] | None:
        """One token: None when it is taken, else what to await for it.

        Raises (also the awaited):
            Problem: rate_limited.
        """
        bucket.touched = now
        if now < bucket.ends and bucket.left > 0:
            bucket.left -= 1
            bucket.taken += 1
            if bucket.left < bucket.leased >> 2 and bucket.drawing is None:
                self._draw(bucket)  # in advance, so that nobody waits
            return None
        if now < bucket.empty_until:
            raise _refusal(bucket, now)
        return self._wait_for_token(bucket)

    async def _wait_for_token(self, bucket: Bucket) -> None:
        """Among those that wait for one answer of Redis, who came first gets first."""
        while True:
            now = self._now()
            if now < self._away_until:
                self._take_from_share(bucket, now)
                return
            bucket.waiting += 1
            drawing = bucket.drawing or self._draw(bucket)
            try:
                await asyncio.shield(drawing)
            finally:
                bucket.waiting -= 1
            now = self._now()
            if bucket.granted > 0:
                bucket.granted -= 1
                bucket.taken += 1
                return
            if now < bucket.ends and bucket.left > 0:
                bucket.left -= 1
                bucket.taken += 1
                return
            if now < bucket.empty_until:
                raise _refusal(bucket, now)

    def _draw(self, bucket: Bucket) -> asyncio.Task[None]:
        return self._start(bucket, self._ask(bucket))

    def _start(self, bucket: Bucket, talk: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Talk to Redis about a bucket: one such talk at a time, or their effects could change places."""
        task = bucket.drawing = asyncio.get_running_loop().create_task(talk)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask(self, bucket: Bucket) -> None:
        """Draw what those waiting need, and in advance what the next moments are likely to."""
        await asyncio.sleep(0)  # let everybody who came in this turn of the loop be counted
        asked = self._now()
        if asked >= bucket.ends:
            bucket.left = 0
        needed, held = bucket.waiting, bucket.left
        elapsed = max(asked - bucket.drawn_at, 0.001)
        busy = bucket.taken > 0 and elapsed < LEASE_SECONDS
        demand = (bucket.taken + needed) / elapsed if busy else 0.0
        wanted = min(int(demand * AHEAD_SECONDS), bucket.policy.burst // 2)
        bucket.drawn_at, bucket.taken = asked, 0
        try:
            answer = await self._run(bucket, needed, wanted, held, 0)
        except (TimeoutError, OSError, RedisError) as error:
            self._lost(bucket, error)
            return
        finally:
            bucket.drawing = None
        granted, leased, counted, bucket.remaining, wait, bucket.peers = answer
        bucket.share, bucket.share_at = max(1.0, bucket.remaining / (bucket.peers + 1)), asked
        # What is granted belongs to those who wait, at once or not at all; only the rest is on lease.
        bucket.granted, bucket.leased = granted, leased
        bucket.left = bucket.left + leased if counted else leased
        # Counted from before the question was sent, so that it ends here before it ends there.
        bucket.ends = asked + LEASE_SECONDS
        if granted < needed or (wait and not bucket.left):
            answered = self._now()
            bucket.token_at = answered + wait / 1_000_000
            bucket.empty_until = min(bucket.token_at, answered + LEASE_SECONDS)
        else:
            bucket.empty_until = 0.0

    async def _give_back(self, bucket: Bucket) -> None:
        unused, bucket.left = bucket.left, 0
        try:
            await self._run(bucket, 0, 0, 0, unused)
        except (TimeoutError, OSError, RedisError) as error:
            self._lost(bucket, error)
        finally:
            bucket.drawing = None

    async def _run(self, bucket: Bucket, needed: int, wanted: int, held: int, given_back: int) -> list[int]:
        policy, (text, sha) = bucket.policy, _script()
        serial, self._serial = bucket.serial, self._serial + 1
        bucket.serial = self._serial
        args: tuple[Any, ...] = (self._worker, policy.rate, policy.burst, needed, wanted, held, given_back)
        args += (serial, bucket.serial, int(LEASE_SECONDS * 1_000_000), self._store_time())
        redis = self._redis()
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                answer: Any = await redis.evalsha(sha, 1, bucket.key, *args)
            except NoScriptError:
                answer = await redis.eval(text, 1, bucket.key, *args)
        self._away_since = None
        return [int(number) for number in answer]

    def _lost(self, bucket: Bucket, error: Exception) -> None:
        now = self._now()
        bucket.left = 0  # nobody can say what Redis made of it
        if self._away_since is None:
            self._away_since = now
            logger.warning("limits are this worker's share for now, Redis does not answer: %s", error or "too slow")
        self._away_until = now + AWAY_SECONDS

    def _take_from_share(self, bucket: Bucket, now: float) -> None:
        """Redis is away: this worker's part of the rate, and of what Redis last had left; no new burst."""
        part = 1 / (bucket.peers + 1)
        policy = bucket.policy
        # Until the outage began, Redis gave out what was gained.
        began = now if self._away_since is None else self._away_since
        gained = (now - max(bucket.share_at, began)) * policy.rate * part
        bucket.share = min(max(1.0, policy.burst * part), bucket.share + gained)
        bucket.share_at = now
        if bucket.share < 1:
            bucket.token_at = now + (1 - bucket.share) / (policy.rate * part)
            bucket.empty_until = min(bucket.token_at, now + LEASE_SECONDS)  # then Redis may be back
            raise _refusal(bucket, now)
        bucket.share -= 1

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.tidy()

    async def tidy(self) -> None:
        """Give back what was not used since the last time, and forget buckets that nobody asks for."""
        now = self._now()
        for key, bucket in list(self._buckets.items()):
            if bucket.drawing is not None or now - bucket.touched < TICK_SECONDS:
                continue
            if bucket.left and now < bucket.ends:
                await self._start(bucket, self._give_back(bucket))
            elif now - bucket.touched > FORGET_SECONDS:
                self._buckets.pop(key, None)  # may have made way for another meanwhile


def _refusal(bucket: Bucket, now: float) -> Problem:
    wait = max(bucket.token_at - now, 0.0)
    policy = bucket.policy
    detail = f"Policy {policy.name.decode()} admits {policy.rate:g} requests a second, {policy.burst} at once."
    return Problem("rate_limited", detail, headers={"Retry-After": str(max(1, math.ceil(wait)))})


@cache
def _script() -> tuple[str, str]:
    text = files("gateway.proxy").joinpath("bucket.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
