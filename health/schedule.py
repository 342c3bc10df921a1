"""When which check is due, and what came of it: health's part of Redis.

| key (after `anumate:{h}:`) | what |
|---|---|
| `due` | zset: `<instance key>\\|<check id>` → when it is due, in ms of Redis' clock |
| `streaks` | hash: the same → its streak |
| `r:<instance key>\\|<check id>` | list: its last 50 results, newest first |
| `flips` | list: flips that are not rows yet |
| `minutes`, `roll:<minute>` | set of minutes with sums; hash: instance key → passed, failed, latency (sum, maximum) |
| `shift` | lock: who claims at present |

What came of checks goes here first and becomes rows later (`health.journal`), so a database that is away, or slow,
holds up no check and loses no flip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import redis
import redis.asyncio as aioredis

from health.verdict import Outcome, Streak
from registry.live.instances import Health, Key

PREFIX: Final = "anumate:{h}:"
DUE: Final = PREFIX + "due"
STREAKS: Final = PREFIX + "streaks"
FLIPS: Final = PREFIX + "flips"
MINUTES: Final = PREFIX + "minutes"
SHIFT: Final = PREFIX + "shift"
KEPT: Final = 50
"""Results kept of each check."""
HOLD: Final = 60.0
"""Seconds a claim is hidden until its own hold is set; longer than any check may take."""
PAGE: Final = 500

T = TypeVar("T")


class Member(NamedTuple):
    """A check of an instance. `check` 0 is the instance's own, or the default."""

    key: Key
    check: int

    def __str__(self) -> str:
        return f"{self.key}|{self.check}"

    @classmethod
    def parse(cls, text: bytes) -> Member:
        key, _, check = text.decode().rpartition("|")
        return cls(Key.parse(key), int(check))


class Claim(NamedTuple):
    """A check to be made now. `due` is in seconds of Redis' clock."""

    member: Member
    due: float


class Result(msgspec.Struct, frozen=True, array_like=True):
    at: float
    outcome: Outcome


class Recorded(NamedTuple):
    """One result with what follows from it: the streak, and when the check is due again."""

    member: Member
    due: float
    streak: Streak
    result: Result


class FlipRecord(msgspec.Struct, frozen=True, array_like=True):
    """A flip on its way to the journal."""

    key: Key
    old: Health
    new: Health
    sentence: str
    at: float


_streak = msgspec.json.Decoder(Streak)
_result = msgspec.json.Decoder(Result)
_encode = msgspec.json.encode


class Schedule:
    """The schedule as one event loop uses it."""

    def __init__(self, client: aioredis.Redis) -> None:
        self.redis: Any = client  # its annotations promise `Awaitable | value` for most commands
        self._claim = client.register_script(_text("claim"))
        self._record = client.register_script(_text("record"))
        self._remove = client.register_script(_text("remove"))

    async def now(self) -> float:
        """Redis' clock, which every time in the schedule is of."""
        seconds, microseconds = await self.redis.time()
        return float(seconds + microseconds / 1_000_000)

    async def claim(self, limit: int) -> list[Claim]:
        """Up to `limit` checks that are due; nobody else gets them for a while."""
        flat = await self._claim(keys=[DUE], args=[limit, round(HOLD * 1000)])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [Claim(Member.parse(text), float(score) / 1000) for text, score in pairs]

    async def hold(self, until: Mapping[Member, float]) -> list[Streak]:
        """Hide claimed checks until then, in case this worker dies; answers their streaks."""
        if not until:
            return []
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.hmget(STREAKS, [str(member) for member in until])
        pipeline.zadd(DUE, _scores(until.items()), xx=True)
        return [_decode(raw) for raw in (await pipeline.execute())[0]]

    async def streaks(self, members: Sequence[Member]) -> list[Streak]:
        return [_decode(raw) for raw in await self.redis.hmget(STREAKS, [str(member) for member in members])]

    async def record(self, results: Sequence[Recorded], now: float) -> None:
        """Keep results, and say when their checks are due again."""
        arguments: list[Any] = [PREFIX, int(now // 60) * 60, KEPT]
        for each in results:
            outcome = each.result.outcome
            arguments += (
                str(each.member),
                round(each.due * 1000),
                _encode(each.streak),
                _encode(each.result),
                int(outcome.kind == "failed"),
                outcome.latency,
            )
        await self._record(keys=[DUE, STREAKS, MINUTES], args=arguments)

    async def add(self, due: Mapping[Member, float]) -> None:
        """Put checks on the list; one that is on it keeps its time."""
        for page in _pages(due.items()):
            await self.redis.zadd(DUE, _scores(page), nx=True)

    async def hasten(self, due: Mapping[Member, float]) -> None:
        """Have checks made no later than this."""
        for page in _pages(due.items()):
            await self.redis.zadd(DUE, _scores(page), lt=True)

    async def remove(self, members: Iterable[Member]) -> dict[Member, Streak]:
        """Take checks off the list, results and all; answers the last streaks of those that were on it."""
        removed: dict[Member, Streak] = {}
        for page in _pages(members):
            answers = await self._remove(keys=[DUE, STREAKS], args=[PREFIX, *map(str, page)])
            removed.update((member, _decode(raw)) for member, raw in zip(page, answers, strict=True) if raw is not None)
        return removed

    async def members(self) -> set[Member]:
        return {Member.parse(text) for text in await self.redis.zrange(DUE, 0, -1)}

    async def remember(self, flips: Sequence[FlipRecord]) -> None:
        """Keep flips for the journal."""
        if flips:
            await self.redis.rpush(FLIPS, *map(_encode, flips))


class History(NamedTuple):
    """What is known of a check: its streak, and the last results, newest first."""

    streak: Streak
    results: list[Result]


def histories(client: redis.Redis, members: Sequence[Member], last: int = 1) -> dict[Member, History]:
    """The histories of checks, for who shows them."""
    found: dict[Member, History] = {}
    for page in _pages(members):
        pipeline = client.pipeline(transaction=False)
        pipeline.hmget(STREAKS, [str(member) for member in page])
        for member in page:
            pipeline.lrange(f"{PREFIX}r:{member}", 0, last - 1)
        streaks, *results = pipeline.execute()
        for member, streak, raw in zip(page, streaks, results, strict=True):
            found[member] = History(_decode(streak), [_result.decode(each) for each in raw])
    return found


def _decode(raw: bytes | None) -> Streak:
    return _streak.decode(raw) if raw else Streak()


def _scores(due: Iterable[tuple[Member, float]]) -> dict[str, int]:
    return {str(member): round(at * 1000) for member, at in due}


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    listed = list(items)
    return (listed[start : start + PAGE] for start in range(0, len(listed), PAGE))


def _text(name: str) -> str:
    return files("health").joinpath(f"{name}.lua").read_text("utf-8")
