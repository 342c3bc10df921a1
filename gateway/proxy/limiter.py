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
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

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
TOGETHER: Final = 64
"""Buckets in one call of the script: each takes Redis some ten microseconds, in which it serves nobody else."""


class Policy:
    """A rate-limit policy, compiled: what every bucket of it shares."""

    __slots__ = ("burst", "by", "header", "lines", "name", "policy_field", "prefix", "rate", "tenant", "wait_field")

    def __init__(self, limit: RateLimit, *, built_in: bool = False) -> None:
        self.rate = limit.rate
        self.burst = limit.burst
        self.by = limit.by
        self.header = limit.by.removeprefix("header:").lower().encode() if limit.by.startswith("header:") else b""
        self.name = limit.name.encode()
        self.tenant = limit.tenant
        # Its tenant's hash tag keeps the buckets of one request on one node of a cluster.
        # What is built in is counted under an empty name, which no tenant can give to a policy of its own.
        self.prefix = f"anumate:rl:{{{limit.tenant}}}:{'' if built_in else limit.name}:"
        window = max(1, math.ceil(limit.burst / limit.rate))
        self.policy_field = b'"%b";q=%d;w=%d' % (self.name, limit.burst, window)
        self.wait_field = max(1, math.ceil(1 / limit.rate))
        after = b";t=%d\r\nratelimit-policy: %b\r\n" % (self.wait_field, self.policy_field)
        self.lines = b'ratelimit: "%b";r=' % self.name, after
        """Both fields as lines; how many tokens are left goes between the two."""

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
        "reserving",
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
        self.reserving = 0
        self.drawn_at = self.touched = now
        self.empty_until = self.token_at = 0.0
        self.remaining = policy.burst
        self.peers = 0
        self.share = 1.0  # or a slow policy would never admit whom this worker does not know yet
        self.share_at = now
        self.drawing: asyncio.Task[None] | None = None

    def has_token(self, now: float) -> bool:
        """Whether one can be given out without asking."""
        return now < self.ends and self.left > 0

    def tokens(self, now: float) -> int:
        """About how many requests it would admit now."""
        if now < self.empty_until:
            return 0
        known = self.left + self.remaining + int((now - self.drawn_at) * self.policy.rate)
        return min(known, self.policy.burst)

    def fields(self, now: float) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = self.policy
        value = b'"%b";r=%d;t=%d' % (policy.name, self.tokens(now), policy.wait_field)
        return [(b"ratelimit", value), (b"ratelimit-policy", policy.policy_field)]

    def lines(self, now: float) -> bytes:
        """The same as lines of a head."""
        before, after = self.policy.lines
        return b"%b%d%b" % (before, self.tokens(now), after)


def tightest(buckets: Sequence[Bucket], now: float) -> list[tuple[bytes, bytes]]:
    """The fields of several buckets: every policy, and what is left of the one that will refuse first."""
    (limit, _) = min(buckets, key=lambda bucket: bucket.tokens(now)).fields(now)
    return [limit, (b"ratelimit-policy", b", ".join([bucket.policy.policy_field for bucket in buckets]))]


class Call(NamedTuple):
    """What is asked of Redis about a bucket: tokens `needed` now, `reserved` on lease for requests that need those of
    others too, and `wanted` in advance; of the own lease those still `held` and those `given_back`.
    """

    bucket: Bucket
    needed: int = 0
    reserved: int = 0
    wanted: int = 0
    held: int = 0
    given_back: int = 0


def _need(bucket: Bucket, now: float) -> Call:
    """What the bucket's requests need, and what the next ones are likely to."""
    if now >= bucket.ends:
        bucket.left = 0
    elapsed = max(now - bucket.drawn_at, 0.001)
    busy = bucket.taken > 0 and elapsed < LEASE_SECONDS
    demand = (bucket.taken + bucket.waiting + bucket.reserving) / elapsed if busy else 0.0
    wanted = min(int(demand * AHEAD_SECONDS), bucket.policy.burst // 2)
    bucket.drawn_at, bucket.taken = now, 0
    return Call(bucket, bucket.waiting, bucket.reserving, wanted, bucket.left)


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
        self._asking: dict[str, list[Bucket]] = {}  # by tenant, until the question is sent
        self._talks: dict[str, asyncio.Task[None]] = {}
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

    def take_all(self, buckets: Sequence[Bucket], now: float) -> Awaitable[None] | None:
        """One token of each or none: None when they are taken, else what to await for them.

        Raises (also the awaited):
            Problem: rate_limited.
        """
        for bucket in buckets:
            bucket.touched = now
            if now < bucket.empty_until and not bucket.has_token(now):
                raise _refusal(bucket, now)
        if not all(bucket.has_token(now) for bucket in buckets):
            return self._wait_for_all(buckets)
        for bucket in buckets:
            self.take(bucket, now)
        return None

    async def _wait_for_all(self, buckets: Sequence[Bucket]) -> None:
        """Have tokens put on lease until all are here at once; if a bucket has none, the others get theirs back."""
        drawn: list[Bucket] = []
        while True:
            now = self._now()
            missing = [bucket for bucket in buckets if not bucket.has_token(now)]
            if now < self._away_until:
                self._take_from_shares(missing, now)
                buckets, missing = [bucket for bucket in buckets if bucket not in missing], []
            if not missing:
                for bucket in buckets:
                    self.take(bucket, now)
                return
            empty = next((bucket for bucket in missing if now < bucket.empty_until), None)
            if empty is not None:
                for bucket in drawn:
                    if bucket.left and bucket.drawing is None:
                        bucket.drawing = self._start(self._give_back(bucket))
                raise _refusal(empty, now)
            drawn += missing
            await self._reserve(missing)

    async def _reserve(self, buckets: Sequence[Bucket]) -> None:
        """Ask for all of them at once."""
        for bucket in buckets:
            bucket.reserving += 1
        try:
            await asyncio.gather(*(asyncio.shield(bucket.drawing or self._draw(bucket)) for bucket in buckets))
        finally:
            for bucket in buckets:
                bucket.reserving -= 1

    async def _wait_for_token(self, bucket: Bucket) -> None:
        """Among those that wait for one answer of Redis, who came first gets first."""
        while True:
            now = self._now()
            if now < self._away_until:
                self._take_from_shares([bucket], now)
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
        """Ask Redis about a bucket, with all of its tenant's that are asked about in this turn of the loop."""
        tenant = bucket.policy.tenant
        asking = self._asking.get(tenant)
        if asking is None or len(asking) >= TOGETHER:
            asking = self._asking[tenant] = []
            self._talks[tenant] = self._start(self._ask(tenant, asking))
        asking.append(bucket)
        task = bucket.drawing = self._talks[tenant]
        return task

    def _start(self, talk: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Talk to Redis: about one bucket once at a time, or the effects of two talks could change places."""
        task = asyncio.get_running_loop().create_task(talk)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask(self, tenant: str, buckets: list[Bucket]) -> None:
        """Draw what those waiting need, and in advance what the next moments are likely to."""
        await asyncio.sleep(0)  # let everybody who came in this turn of the loop be counted
        if self._asking.get(tenant) is buckets:
            del self._asking[tenant]
        asked = self._now()
        calls = [_need(bucket, asked) for bucket in buckets]
        try:
            answers = await self._run(calls)
        except (TimeoutError, OSError, RedisError) as error:
            for bucket in buckets:
                self._lost(bucket, error)
            return
        finally:
            for bucket in buckets:
                bucket.drawing = None
        for call, answer in zip(calls, answers, strict=True):
            self._adopt(call, answer, asked)

    def _adopt(self, call: Call, answer: list[int], asked: float) -> None:
        bucket, needed = call.bucket, call.needed
        granted, leased, counted, bucket.remaining, wait, bucket.peers = answer
        bucket.share, bucket.share_at = max(1.0, bucket.remaining / (bucket.peers + 1)), asked
        # What is granted belongs to those who wait, at once or not at all; the rest is on lease, what is reserved too.
        bucket.granted, bucket.leased = granted, leased
        bucket.left = bucket.left + leased if counted else leased
        # Counted from before the question was sent, so that it ends here before it ends there.
        bucket.ends = asked + LEASE_SECONDS
        if granted < needed or leased < call.reserved or (wait and not bucket.left):
            answered = self._now()
            bucket.token_at = answered + wait / 1_000_000
            bucket.empty_until = min(bucket.token_at, answered + LEASE_SECONDS)
        else:
            bucket.empty_until = 0.0

    async def _give_back(self, bucket: Bucket) -> None:
        unused, bucket.left = bucket.left, 0
        try:
            await self._run([Call(bucket, given_back=unused)])
        except (TimeoutError, OSError, RedisError) as error:
            self._lost(bucket, error)
        finally:
            bucket.drawing = None

    async def _run(self, calls: Sequence[Call]) -> list[list[int]]:
        """One call of the script about buckets of one tenant; an answer for each."""
        text, sha = _script()
        args: list[Any] = [self._worker, int(LEASE_SECONDS * 1_000_000), self._store_time()]
        for bucket, *numbers in calls:
            serial, self._serial = bucket.serial, self._serial + 1
            bucket.serial = self._serial
            args += (bucket.policy.rate, bucket.policy.burst, *numbers, serial, bucket.serial)
        keys = [call.bucket.key for call in calls]
        redis = self._redis()
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                answer: Any = await redis.evalsha(sha, len(keys), *keys, *args)
            except NoScriptError:
                answer = await redis.eval(text, len(keys), *keys, *args)
        self._away_since = None
        return [[int(number) for number in each] for each in answer]

    def _lost(self, bucket: Bucket, error: Exception) -> None:
        now = self._now()
        bucket.left = 0  # nobody can say what Redis made of it
        if self._away_since is None:
            self._away_since = now
            logger.warning("limits are this worker's share for now, Redis does not answer: %s", error or "too slow")
        self._away_until = now + AWAY_SECONDS

    def _take_from_shares(self, buckets: Sequence[Bucket], now: float) -> None:
        """Redis is away: a token of each or none, out of this worker's part of the rate, and of what Redis last had
        left; no new burst.
        """
        for bucket in buckets:
            self._gain(bucket, now)
        for bucket in buckets:
            if bucket.share < 1:
                raise _refusal(bucket, now)
        for bucket in buckets:
            bucket.share -= 1

    def _gain(self, bucket: Bucket, now: float) -> None:
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
                bucket.drawing = self._start(self._give_back(bucket))
                await bucket.drawing
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
