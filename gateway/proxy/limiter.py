"""Token buckets that hold over all workers and nodes, at the price of a local subtraction for a hot key.

The bucket is in Redis (`bucket.lua`, which says why the bound holds). A worker draws a short lease in advance, as large
as its own demand of the last moments, and gives tokens out from it. Without a lease it gives them out on credit, where
the policy's burst is large enough to keep some back for every worker, and tells Redis a moment later; any other request
waits for Redis. While the bucket is empty, refusals are local too. When Redis is away each worker serves its
share by itself, of the rate and of what was left in the bucket, the share being that of the workers it last knew of.
What it gives out meanwhile it owes, and Redis counts that before anything else when it is back: what the bucket then
lacks is gained first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Final, NamedTuple

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError

from anumate.lib import clock
from gateway.proxy.buckets import LEASE_SECONDS, Bucket, Policy, refusal

logger = logging.getLogger("anumate.limiter")

AHEAD_SECONDS: Final = 0.25
"""A lease is what this worker is likely to give out in this time."""
ANSWER_SECONDS: Final = 0.5
"""How long a request waits for Redis before the worker's own share decides."""
AWAY_SECONDS: Final = 1.0
"""How long Redis is left alone after it failed to answer."""
FORGET_SECONDS: Final = 60.0
BUCKETS: Final = 50_000
"""The most that a worker keeps: clients may name as many as they like, where a policy counts by a header."""
LOOKS: Final = 8
"""Buckets that a new one looks at, for one that can be forgotten."""
AT_A_TIME: Final = 1000
"""Buckets that are forgotten in one turn of the loop."""
TICK_SECONDS: Final = 0.25
TOGETHER: Final = 64
"""Buckets in one call of the script: each takes Redis some ten microseconds, in which it serves nobody else."""
GATHER_SECONDS: Final = 0.05
"""What nobody waits for is asked together with what comes up in this time."""


class Call(NamedTuple):
    """What is asked of Redis about a bucket: tokens `needed` now, `reserved` on lease for requests that need those of
    others too, and `wanted` in advance; of the own lease those still `held` and those `given_back`; and what is `owed`.
    """

    bucket: Bucket
    needed: int = 0
    reserved: int = 0
    wanted: int = 0
    held: int = 0
    given_back: int = 0
    owed: float = 0.0


class Question:
    """Buckets of one tenant that Redis is asked about together, once somebody waits for it or the time has come."""

    __slots__ = ("buckets", "hurry", "talk")

    talk: asyncio.Task[None]

    def __init__(self) -> None:
        self.buckets: list[Bucket] = []
        self.hurry = asyncio.Event()


def _need(bucket: Bucket, now: float) -> Call:
    """What the bucket's requests need, and what the next ones are likely to."""
    if now >= bucket.ends:
        bucket.left = 0
    if bucket.doubtful is not None:
        # Nothing but what was told without an answer, or nobody could say what of it counted; the rest comes after it.
        return Call(bucket, held=bucket.left, owed=bucket.doubtful)
    elapsed = max(now - bucket.drawn_at, 0.001)
    busy = bucket.taken > 0 and elapsed < LEASE_SECONDS
    demand = (bucket.taken + bucket.waiting + bucket.reserving) / elapsed if busy else 0.0
    # While a lease is out the bucket is not refilled beyond it: of a full one, what it would gain meanwhile is lost.
    wanted = min(int(demand * AHEAD_SECONDS), bucket.policy.burst // 4)
    bucket.drawn_at, bucket.taken = now, 0
    return Call(bucket, bucket.waiting, bucket.reserving, wanted, bucket.left, owed=bucket.owed)


class Limiter:
    """This worker's buckets. `take` is the hot path; `run` gives back what idle buckets hold and forgets them.

    `workers` tells how many there are, this one included; 0 while that is not known. It keeps `most` buckets, and more
    only while there are tokens out of them.
    """

    def __init__(
        self,
        redis: Callable[[], aioredis.Redis],
        worker: str,
        monotonic: clock.Clock = clock.monotonic,
        store_time: Callable[[], str] = str,
        workers: Callable[[], int] = int,
        most: int = BUCKETS,
    ) -> None:
        self._redis = redis
        self._worker = worker
        self._now = monotonic
        self._store_time = store_time  # microseconds as text; empty for the server's own
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()  # who was not asked for longest comes first
        self._holding: set[Bucket] = set()  # those with a lease
        self._owing: set[Bucket] = set()  # those that owe since Redis went away
        self._others = 0  # workers, as last known
        self._away_until = 0.0
        self._away_since: float | None = None
        self._serial = 0
        self._workers = workers
        self._most = most
        self._asking: dict[str, Question] = {}  # by tenant, until it is sent
        self._background: set[asyncio.Task[None]] = set()

    def bucket(self, policy: Policy, subject: str, now: float) -> Bucket:
        key = policy.key(subject)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._make_room(now)
            bucket = self._buckets[key] = Bucket(policy, key, now, self._serial, self._others)
            if len(self._buckets) > self._most:
                bucket.share = 0.0  # while Redis is away it may be one that had to be forgotten
            return bucket
        self._buckets.move_to_end(key)
        if bucket.policy is not policy:
            bucket.policy = policy  # changed by a publish; what is held of the old one ends soon by itself
            bucket.empty_until = 0.0
        return bucket

    def _make_room(self, now: float) -> None:
        """Forget those that were not asked for longest. Not one that is in use: a second one by its name would have
        Redis forget the lease of the first, or what that owes would never be told.
        """
        for _ in range(LOOKS):
            key, bucket = next(iter(self._buckets.items()))
            if self._forgets(bucket, now):
                if len(self._buckets) < self._most:
                    return
            else:
                self._buckets.move_to_end(key)
                self._tell([bucket])

    def _forgets(self, bucket: Bucket, now: float) -> bool:
        if bucket.owed and self._away_since is not None:
            self._gain(bucket, now)  # after a while it owes nothing any more
        if not bucket.is_at_rest(now):
            return False
        del self._buckets[bucket.key]
        self._owing.discard(bucket)
        return True

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
            raise refusal(bucket, now)
        if self._lends(bucket, now):
            bucket.owed += 1
            bucket.taken += 1
            if bucket.drawing is None:
                self._draw(bucket)
            return None
        return self._wait_for_token(bucket)

    def _lends(self, bucket: Bucket, now: float) -> bool:
        """Whether the bucket may give out one more token before Redis is asked. A worker owes it no more than half of
        its part of what is kept back, so that the bound holds while others begin that are not known yet."""
        credit = bucket.policy.credit
        if not credit or now < self._away_until or not (workers := self._workers()):
            return False
        if len(self._buckets) > self._most:  # there may be many that owe, while Redis is away
            return False
        return bucket.owed < credit // (2 * workers)

    def take_all(self, buckets: Sequence[Bucket], now: float) -> Awaitable[None] | None:
        """One token of each or none: None when they are taken, else what to await for them.

        Raises (also the awaited):
            Problem: rate_limited.
        """
        for bucket in buckets:
            bucket.touched = now
            if now < bucket.empty_until and not bucket.has_token(now):
                raise refusal(bucket, now)
        if not all(bucket.has_token(now) for bucket in buckets):
            return self._wait_for_all(buckets)
        for bucket in buckets:
            self.take(bucket, now)
        return None

    async def _wait_for_all(self, buckets: Sequence[Bucket]) -> None:
        for bucket in buckets:
            bucket.held += 1
        try:
            await self._gather(buckets)
        finally:
            for bucket in buckets:
                bucket.held -= 1

    async def _gather(self, buckets: Sequence[Bucket]) -> None:
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
                        bucket.drawing = self._start(self._give_back([bucket]))
                raise refusal(empty, now)
            drawn += missing
            await self._reserve(missing)

    async def _reserve(self, buckets: Sequence[Bucket]) -> None:
        """Ask for all of them at once."""
        for bucket in buckets:
            bucket.reserving += 1
        try:
            await asyncio.gather(*(asyncio.shield(self._drawing_now(bucket)) for bucket in buckets))
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
            drawing = self._drawing_now(bucket)
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
                raise refusal(bucket, now)

    def _draw(self, bucket: Bucket) -> asyncio.Task[None]:
        """Ask Redis about a bucket, with all of its tenant's that are asked about in the next moment."""
        tenant = bucket.policy.tenant
        question = self._asking.get(tenant)
        if question is None:
            question = self._asking[tenant] = Question()
            question.talk = self._start(self._ask(tenant, question))
        question.buckets.append(bucket)
        bucket.drawing = question.talk
        if len(question.buckets) >= TOGETHER:
            self._send(tenant)
        return question.talk

    def _drawing_now(self, bucket: Bucket) -> asyncio.Task[None]:
        """The talk about a bucket that somebody waits for."""
        drawing = bucket.drawing or self._draw(bucket)
        question = self._asking.get(bucket.policy.tenant)
        if question is not None and question.talk is drawing:
            question.hurry.set()
        return drawing

    def _send(self, tenant: str) -> None:
        """No more is asked in this question."""
        self._asking.pop(tenant).hurry.set()

    def _start(self, talk: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Talk to Redis: about one bucket once at a time, or the effects of two talks could change places."""
        task = asyncio.get_running_loop().create_task(talk)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _ask(self, tenant: str, question: Question) -> None:
        """Draw what those waiting need, and in advance what the next moments are likely to; tell what is owed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await question.hurry.wait()
        await asyncio.sleep(0)  # let everybody who came in this turn of the loop be counted
        if self._asking.get(tenant) is question:
            self._send(tenant)
        buckets = question.buckets
        asked = self._now()
        try:
            calls = [_need(bucket, asked) for bucket in buckets]
            answers = await self._run(calls)
        except (TimeoutError, OSError, RedisError) as error:
            for call in calls:
                if call.bucket.doubtful is None:
                    call.bucket.doubtful = call.owed
                self._lost(call.bucket, error)
            return
        finally:
            _over(buckets)
        for call, answer in zip(calls, answers, strict=True):
            self._adopt(call, answer, asked)
        self._tell(buckets)

    def _adopt(self, call: Call, answer: list[int], asked: float) -> None:
        bucket, needed = call.bucket, call.needed
        granted, leased, counted, bucket.remaining, wait, bucket.peers = answer
        if workers := self._workers():
            self._others = workers - 1
        bucket.peers = max(bucket.peers, self._others)
        bucket.owed, bucket.doubtful, bucket.answered = max(0.0, bucket.owed - call.owed), None, bucket.serial
        bucket.share, bucket.share_at = max(0.0, bucket.remaining - bucket.owed) / (bucket.peers + 1), asked
        # What is granted belongs to those who wait, at once or not at all; the rest is on lease, what is reserved too.
        bucket.granted, bucket.leased = granted, leased
        bucket.left = bucket.left + leased if counted else leased
        if leased:
            self._holding.add(bucket)
        # Counted from before the question was sent, so that it ends here before it ends there.
        bucket.ends = asked + LEASE_SECONDS
        if granted < needed or leased < call.reserved or (wait and not bucket.left):
            answered = self._now()
            bucket.token_at = answered + wait / 1_000_000
            bucket.empty_until = min(bucket.token_at, answered + LEASE_SECONDS)
        else:
            bucket.empty_until = 0.0

    async def _give_back(self, buckets: Sequence[Bucket]) -> None:
        """What these, of one tenant, hold on lease."""
        calls = []
        for bucket in buckets:
            calls.append(Call(bucket, given_back=bucket.left))
            bucket.left = 0
        try:
            await self._run(calls)
        except (TimeoutError, OSError, RedisError) as error:
            for bucket in buckets:
                self._lost(bucket, error)
        finally:
            _over(buckets)
        self._tell(buckets)

    def _tell(self, buckets: Iterable[Bucket]) -> None:
        """Of what these came to owe while Redis was being asked about them."""
        for bucket in buckets:
            if bucket.owed and bucket.drawing is None and self._now() >= self._away_until:
                self._draw(bucket)

    def _tell_of_outage(self, now: float) -> None:
        """Whether or not anybody asks for those that owe: other workers do. One of them finds out if Redis is back."""
        some = list(islice(self._owing, 1 if self._away_since is not None else AT_A_TIME))
        if self._away_since is not None:
            for bucket in some:
                self._gain(bucket, now)
        self._tell(some)
        self._owing.difference_update([bucket for bucket in some if not bucket.owed])

    async def _run(self, calls: Sequence[Call]) -> list[list[int]]:
        """One call of the script about buckets of one tenant; an answer for each."""
        text, sha = _script()
        args: list[Any] = [self._worker, int(LEASE_SECONDS * 1_000_000), self._store_time()]
        for bucket, *numbers in calls:
            serial, self._serial = bucket.serial, self._serial + 1
            bucket.serial = self._serial
            policy = bucket.policy
            # As one text: the client takes a microsecond for each argument.
            args.append(
                " ".join(map(repr, (policy.rate, policy.capacity, *numbers, bucket.answered, serial, bucket.serial)))
            )
        keys = [call.bucket.key for call in calls]
        redis = self._redis()
        async with asyncio.timeout(ANSWER_SECONDS):
            try:
                answers: Any = await redis.evalsha(sha, len(keys), *keys, *args)
            except NoScriptError:
                answers = await redis.eval(text, len(keys), *keys, *args)
        self._away_since = None
        return answers  # type: ignore[no-any-return]

    def _lost(self, bucket: Bucket, error: Exception) -> None:
        now = self._now()
        bucket.left = 0  # nobody can say what Redis made of it
        if bucket.owed:
            self._owing.add(bucket)
        if self._away_since is None:
            self._away_since = now
            logger.warning(
                "limits are this worker's share for now, Redis does not answer: %s", str(error) or "too slow"
            )
        self._away_until = now + AWAY_SECONDS

    def _take_from_shares(self, buckets: Sequence[Bucket], now: float) -> None:
        """Redis is away: a token of each or none, out of this worker's part of the rate, and of what Redis last had
        left; no new burst.
        """
        for bucket in buckets:
            self._gain(bucket, now)
        for bucket in buckets:
            if bucket.share < 1:
                raise refusal(bucket, now)
        for bucket in buckets:
            bucket.share -= 1
            bucket.owed += 1
            self._owing.add(bucket)

    def _gain(self, bucket: Bucket, now: float) -> None:
        part = 1 / (bucket.peers + 1)
        policy = bucket.policy
        # Until the outage began, Redis gave out what was gained.
        began = now if self._away_since is None else self._away_since
        since = max(bucket.share_at, began)
        gained = (now - since) * policy.rate * part
        # From when on the bucket in Redis is full, as far as is known here: what it does not gain any more is this
        # worker's to give out.
        doubtful = bucket.doubtful or 0.0
        full = began + (policy.capacity - bucket.remaining + doubtful) / policy.rate
        if now > full:
            bucket.owed = max(doubtful, bucket.owed - (now - max(since, full)) * policy.rate * part)
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
        idle: dict[str, list[Bucket]] = {}
        now = self._now()
        for bucket in list(self._holding):
            if bucket.drawing is None and not bucket.has_token(now):
                self._holding.discard(bucket)
            elif _is_idle(bucket, now):
                idle.setdefault(bucket.policy.tenant, []).append(bucket)
        for buckets in idle.values():
            for start in range(0, len(buckets), TOGETHER):
                now = self._now()  # while others were told of, these may have become busy
                some = [bucket for bucket in buckets[start : start + TOGETHER] if _is_idle(bucket, now)]
                if some:
                    talk = self._start(self._give_back(some))
                    for bucket in some:
                        bucket.drawing = talk
                    await talk
        now = self._now()
        if now >= self._away_until:
            self._tell_of_outage(now)
        for bucket in list(islice(self._buckets.values(), AT_A_TIME)):
            if now - bucket.touched <= FORGET_SECONDS:
                break
            if not self._forgets(bucket, now):
                self._tell([bucket])  # Redis was away; none is forgotten before it knows


def _is_idle(bucket: Bucket, now: float) -> bool:
    """Whether it holds what nobody asks for."""
    return bucket.drawing is None and now - bucket.touched >= TICK_SECONDS and bucket.has_token(now)


def _over(buckets: Iterable[Bucket]) -> None:
    """This talk about them is."""
    talk = asyncio.current_task()
    for bucket in buckets:
        if bucket.drawing is talk:
            bucket.drawing = None


@cache
def _script() -> tuple[str, str]:
    text = files("gateway.proxy").joinpath("bucket.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
