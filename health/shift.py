"""One worker's turn at the checks: claim what is due, ask, judge, tell; again until nothing is due or the turn is over.

Only one worker claims at a time, so that a tick which comes early costs one round trip. What is still in flight when a
turn ends (a target may hang for its whole timeout) is seen to its end beside the next turns, and no later than `GRACE`
after the longest timeout of what was asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from random import Random
from typing import Final, NamedTuple

import redis.asyncio as aioredis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError

from anumate.lib import tasks
from health.following import catch_up
from health.journal import Clerk
from health.plan import Check
from health.probes import Resolver, probe
from health.roster import Planned, Roster
from health.schedule import SHIFT, Claim, FlipRecord, Member, Recorded, Result, Schedule
from health.verdict import Outcome, Streak, judge, worst
from registry.live.instances import Fact, Health, Key
from registry.live.store import AsyncStore

LENGTH: Final = 10.0
"""Seconds a turn claims for."""
ROUND: Final = 0.05
"""Seconds from one round to the next, and the longest that an answer waits to be judged."""
LOCK: Final = 5.0
"""Seconds after which a worker that died loses its turn; a living one renews it each second."""
SPREAD: Final = 1.0
"""Seconds over which the first checks of new instances are spread."""
RECONCILED: Final = 60.0
"""Seconds from one comparison of plan and schedule to the next."""
IN_FLIGHT: Final = 500
"""Checks at once in a process: half of the open files that most systems allow it."""
GRACE: Final = 3.0
"""Seconds after the longest timeout at which a batch ends, whatever becomes of the rest of it."""
CLERK: Final = 0.5
"""Seconds from one look at the rows to the next."""
JITTER: Final = 0.1
LEFT: Final = "It is no longer registered"
UNCHECKED: Final = "It is no longer checked"


class Asked(NamedTuple):
    """A check that has its answer."""

    claim: Claim
    check: Check
    streak: Streak
    outcome: Outcome
    at: float


def next_due(due: float, now: float, interval: float, random: Random) -> float:
    """One interval after it was due, give or take a tenth; after now, when that has passed."""
    wait = interval * random.uniform(1 - JITTER, 1 + JITTER)
    return due + wait if due + wait > now else now + wait


def hold_of(check: Check) -> float:
    """For how long nobody else is to make this check: until it must be over, and not before it is due again."""
    return max(check.interval * (1 + JITTER), check.timeout + 2.0)


class Slots:
    """How many checks this process may still begin, whichever turn began the others. For any number of threads."""

    def __init__(self, most: int = IN_FLIGHT) -> None:
        self._free = most
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        return self._free

    def take(self) -> None:
        with self._lock:
            self._free -= 1

    def release(self, _task: object = None) -> None:
        with self._lock:
            self._free += 1


class Shift:
    """A turn. It lives in one event loop; `roster`, `clerk` and `slots` are the process's and outlive it."""

    def __init__(
        self,
        client: aioredis.Redis,
        roster: Roster,
        clerk: Clerk,
        slots: Slots,
        *,
        random: Random,
        stopping: threading.Event,
    ) -> None:
        self.redis = client
        self.schedule = Schedule(client)
        self.store = AsyncStore(client)
        self.roster = roster
        self.clerk = clerk
        self.slots = slots
        self.random = random
        self.stopping = stopping
        self.resolver = Resolver()
        self.in_flight: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []
        self.end = 0.0  # of the batch, by the monotonic clock
        self.over = asyncio.Event()
        self.books_open = asyncio.Event()
        self.ahead = 0.0  # what Redis' clock shows more than our monotonic one

    @property
    def now(self) -> float:
        """Redis' clock, so that workers agree on what is due and since when something is so."""
        return time.monotonic() + self.ahead

    async def run(self) -> None:
        """Take a turn, unless somebody else has it. What it leaves in flight is for `see_off`."""
        lock = self.redis.lock(SHIFT, timeout=LOCK, blocking=False)
        if not await lock.acquire():
            return
        renewing = asyncio.create_task(self._renew(lock))
        books = asyncio.create_task(self._keep_books())
        try:
            await self._rounds(renewing)
        finally:
            self.over.set()
            await books
            await tasks.end([renewing])
            with suppress(LockError):
                await lock.release()

    async def _renew(self, lock: Lock) -> None:
        while True:
            await asyncio.sleep(LOCK / 5)
            await lock.reacquire()

    async def _keep_books(self) -> None:
        """Rows are the clerk's, in a thread: the database may be slow without making a target look slow."""
        over = False
        while not over:
            over = self.over.is_set()
            await asyncio.to_thread(self.clerk.work)
            self.books_open.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), CLERK)

    async def _rounds(self, renewing: asyncio.Task[None]) -> None:
        if self.clerk.configured is None:
            await self.books_open.wait()
        if self.clerk.configured is None:
            return  # without the database's word we would check what people have said not to check
        self.ahead = await self.schedule.now() - time.monotonic()
        end = time.monotonic() + LENGTH
        while time.monotonic() < end and not self.stopping.is_set() and not renewing.done():
            await self._refresh()
            await self._claim()
            if not self.in_flight:
                return
            await asyncio.sleep(ROUND)
            await self._judge()

    async def see_off(self) -> None:
        """Wait for what is still in flight; on the way out of the process, leave it to whoever finds it due again."""
        while self.in_flight and not self.stopping.is_set() and time.monotonic() < self.end:
            await asyncio.wait(self.in_flight, timeout=ROUND)
            await self._judge()
        await tasks.end(self.in_flight)
        await self._judge()

    async def _refresh(self) -> None:
        """Bring plan and schedule up to what is registered and what is configured."""
        await catch_up(self.redis, self.roster.catalog)
        self.roster.configure(self.clerk.configured or {})
        changes = self.roster.replan()
        await self.schedule.add(self._soon(changes.added))
        await self.schedule.hasten(self._soon(changes.changed))
        await self._drop(changes.dropped)
        for key in changes.unchecked:
            await self._forget(key)
        if time.monotonic() >= self.roster.reconcile_at:
            await self._reconcile()

    def _soon(self, members: Iterable[Member]) -> dict[Member, float]:
        return {member: self.now + self.random.uniform(0, SPREAD) for member in members}

    async def _reconcile(self) -> None:
        """Compare the whole schedule with the whole plan: another worker may have died between two of its steps."""
        self.roster.reconcile_at = time.monotonic() + RECONCILED
        listed, planned = await self.schedule.members(), self.roster.members()
        await self.schedule.add(self._soon(planned - listed))
        await self._drop(listed - planned)

    async def _drop(self, members: set[Member]) -> None:
        """Take checks off the list. An instance that left while it was ill takes its illness with it."""
        ill: dict[Key, list[Streak]] = defaultdict(list)
        for member, streak in (await self.schedule.remove(members)).items():
            if streak.verdict in {"unhealthy", "degraded"} and self.roster.catalog.get(member.key) is None:
                ill[member.key].append(streak)
        await self.schedule.remember(
            [FlipRecord(key, worst(streaks).verdict, "unknown", LEFT, self.now) for key, streaks in ill.items()]
        )

    async def _forget(self, key: Key) -> None:
        """Take back the verdict on an instance that nobody checks any more."""
        instance = self.roster.catalog.get(key)
        said = instance.facts.get("probe") if instance else None
        if said and await self.store.put_fact(key, "probe", None):
            old: Health = said.value  # type: ignore[assignment]  # only we write this kind
            await self.schedule.remember([FlipRecord(key, old, "unknown", UNCHECKED, self.now)])

    async def _claim(self) -> None:
        free = self.slots.free
        claims = await self.schedule.claim(free) if free else []
        # What is claimed and not in the plan stays hidden until the next reconciliation says which of the two is wrong.
        known = [(claim, planned) for claim in claims if (planned := self.roster.planned(claim.member))]
        now = self.now
        streaks = await self.schedule.hold({claim.member: now + hold_of(planned.check) for claim, planned in known})
        for (claim, planned), streak in zip(known, streaks, strict=True):
            self._begin(claim, planned, streak)

    def _begin(self, claim: Claim, planned: Planned, streak: Streak) -> None:
        self.slots.take()
        self.end = max(self.end, time.monotonic() + planned.target.timeout + GRACE)
        task = asyncio.create_task(self._ask(claim, planned, streak))
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)
        task.add_done_callback(self.slots.release)

    async def _ask(self, claim: Claim, planned: Planned, streak: Streak) -> None:
        outcome = await probe(planned.target, self.resolver)
        self.asked.append(Asked(claim, planned.check, streak, outcome, self.now))

    async def _judge(self) -> None:
        """Work in the answers that have come since the last time."""
        asked, self.asked = self.asked, []
        if not asked:
            return
        judged: dict[Key, dict[Member, Streak]] = defaultdict(dict)
        recorded = []
        for each in asked:
            member, check = each.claim.member, each.check
            streak = judge(each.streak, each.outcome, check.thresholds, each.at)
            due = next_due(each.claim.due, self.now, check.interval, self.random)
            recorded.append(Recorded(member, due, streak, Result(round(each.at, 3), each.outcome)))
            judged[member.key][member] = streak
        await self.schedule.record(recorded, self.now)
        await self._add_siblings(judged)
        flips = await asyncio.gather(*(self._tell(key, worst(found.values())) for key, found in judged.items()))
        await self.schedule.remember([flip for flip in flips if flip])

    async def _add_siblings(self, judged: dict[Key, dict[Member, Streak]]) -> None:
        """An instance is as well as the worst of its checks, those included that were not due just now."""
        others = [
            member for key, found in judged.items() for member in self.roster.members_of(key) if member not in found
        ]
        if others:
            for member, streak in zip(others, await self.schedule.streaks(others), strict=True):
                judged[member.key][member] = streak

    async def _tell(self, key: Key, verdict: Streak) -> FlipRecord | None:
        """Put the verdict into the live state when it is not there yet; answers the flip that this was."""
        instance = self.roster.catalog.get(key)
        if instance is None:
            return None
        said = instance.facts.get("probe")
        old: Health = said.value if said else "unknown"  # type: ignore[assignment]  # only we write this kind
        epoch = self.roster.catalog.position.epoch
        if old == verdict.verdict and self.roster.told.get(key) == epoch:
            return None
        fact = Fact(verdict.verdict, verdict.sentence, since=verdict.since, source="health checks")
        moved = await self.store.put_fact(key, "probe", fact)
        self.roster.told[key] = epoch
        # When nothing moved though we thought it would, our catalogue was behind, and somebody has told already.
        if old == verdict.verdict or moved is None:
            return None
        return FlipRecord(key, old, verdict.verdict, verdict.sentence, verdict.since)
