"""What the breakers of all workers decide together, once a second, out of each other's reports.

A worker's own window decides at once, and for that worker alone: its bad luck opens nothing for others. Merged, the
counts of all workers may open a breaker for all of them, so that eight quiet workers add up. When the wait is over, one
worker tries for all: it holds the lease of the trials (`trials.lua`), so that no more requests than the policy says
come to a service that may recover. When its trials are good, the others close too; when one is bad, it keeps the lease
for as long as it waits. Without Redis, each worker decides for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from secrets import token_hex
from typing import Any, Final, NamedTuple

import redis.asyncio as aioredis

from anumate.lib.clock import Clock
from anumate_integration_service.breaker import CircuitBreaker, Snapshot
from gateway.proxy.reports import BreakerReport

TRIAL: Final = "anumate:{g}:trial"
TRIAL_SECONDS: Final = 30.0
"""How long a worker that is never heard of again, with trials out, keeps others from trying."""
TURN_SECONDS: Final = 12.0
"""How long one does that has nothing to try with, while others wait."""
AHEAD_SECONDS: Final = 2.0
"""So long before its wait is over, a breaker asks for leave to try: more than two reports take."""
MARGIN_SECONDS: Final = 5.0
"""So long before a lease ends no trial begins any more. An exchange that sees the trial, and has the lease held on to,
ends sooner, slow as it may be."""
NEVER: Final = -math.inf

Pair = tuple[str, str]


class Heard(NamedTuple):
    """What another worker reported of its breaker, `age` seconds ago."""

    report: BreakerReport
    age: float

    def since(self, now: float) -> float:
        """When its breaker came into its state, on our clock."""
        return now - self.age - self.report.seconds_in_state


@dataclass(slots=True)
class Lease:
    """A lease that may be ours: whoever asks and hears no answer has it, or has not."""

    name: str
    good: int = 0
    """How many trials had been good when it was last held on to."""


class Ask(NamedTuple):
    pair: Pair
    name: str
    seconds: float
    """0 gives it back."""
    renews: bool = False
    takes: bool = True
    tries: bool = False


class Quorum:
    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._leases: dict[Pair, Lease] = {}
        self.try_until = math.inf
        """Of a breaker that begins now: while nobody can be asked, each tries for itself."""

    def alone(self, breakers: Iterable[CircuitBreaker]) -> None:
        """Nobody can be asked: each decides for itself."""
        self.try_until = math.inf
        for breaker in breakers:
            breaker.try_until = math.inf

    async def agree(
        self,
        redis: aioredis.Redis,
        heard: Mapping[Pair, Sequence[Heard]],
        breakers: Mapping[Pair, CircuitBreaker],
        now: Clock,
    ) -> None:
        """Decide with the others.

        Raises:
            redis.RedisError, OSError: they cannot be heard; `alone` is next.
        """
        was_alone, self.try_until = self.try_until != NEVER, NEVER
        at = now()
        asks = []
        for pair, breaker in breakers.items():
            others = heard.get(pair, ())
            together(others, breaker, at)
            # Others may have been alone too, and have yet to report the trials that they let through.
            if not was_alone and (ask := self._ask(pair, breaker.snapshot(at), others)):
                asks.append(ask)
            else:
                breaker.try_until = NEVER
        asks += [self._give_back(pair) for pair in self._leases.keys() - breakers.keys()]
        held = await _hold(redis, asks)
        for ask, seconds in zip(asks, held, strict=True):
            if not seconds:
                self._leases.pop(ask.pair, None)
            if ask.pair in breakers:
                # Counted from before it was asked, so ours ends before anybody else's can begin.
                breakers[ask.pair].try_until = at + seconds - MARGIN_SECONDS if ask.tries else NEVER

    async def retire(self, redis: aioredis.Redis) -> None:
        """Let others try: this worker has no breakers any more."""
        await _hold(redis, [self._give_back(pair) for pair in self._leases])
        self._leases.clear()

    def _ask(self, pair: Pair, seen: Snapshot, others: Sequence[Heard]) -> Ask | None:
        """What to do about the lease of these trials."""
        lease = self._leases.get(pair)
        if seen.state == "closed" or seen.forced:
            return self._give_back(pair) if lease else None
        wanted = any(each.report.state != "closed" for each in others)
        early = seen.retry_in > AHEAD_SECONDS
        if seen.relapsed and seen.retry_in and (early or wanted):
            # Its bad trial speaks for all: nobody tries while it waits, and then others have their turn.
            return Ask(pair, self._lease(pair).name, seen.retry_in, renews=True)
        its_turn_is_over = wanted and seen.state == "open" and not seen.retry_in
        if lease and (early or its_turn_is_over):
            return self._give_back(pair)
        if early:
            return None
        trials_elsewhere = any(each.report.trials_out for each in others)  # who has lost the lease has not lost these
        if lease is None and trials_elsewhere:
            return None
        lease = self._lease(pair)
        # Clients that keep their own trials waiting, one after the other, must not keep others from trying.
        goes_on = (seen.trials_out > 0 and not seen.trials_aside) or seen.trials_good > lease.good
        lease.good = seen.trials_good
        return Ask(
            pair,
            lease.name,
            TRIAL_SECONDS if goes_on else TURN_SECONDS,
            renews=goes_on or not wanted,
            takes=not trials_elsewhere,
            tries=not trials_elsewhere,
        )

    def _lease(self, pair: Pair) -> Lease:
        if pair not in self._leases:
            self._leases[pair] = Lease(f"{self._worker}:{token_hex(8)}")
        return self._leases[pair]

    def _give_back(self, pair: Pair) -> Ask:
        return Ask(pair, self._leases[pair].name, 0.0)


def together(others: Iterable[Heard], breaker: CircuitBreaker, now: float) -> None:
    """Open with the others, or close with them. Pure but for the breaker.

    What another counted before ours came into its state has been judged already, or was reset by an operator.
    """
    seen = breaker.snapshot(now)
    since = now - seen.seconds_in_state
    if seen.state == "closed":
        counted: list[Snapshot | BreakerReport] = [seen]
        counted += [each.report for each in others if each.report.state == "closed" and now - each.age > since]
        if len(counted) > 1:
            reason = breaker.policy.verdict(
                sum(each.calls for each in counted),
                sum(each.failures for each in counted),
                sum(each.slow_calls for each in counted),
            )
            if reason:
                breaker.trip(now, f"Of {len(counted)} workers together: {reason}")
    elif any(each.report.recovered and each.since(now) > since for each in others):
        breaker.recover(now, "Trial calls of another worker succeeded.")


async def _hold(redis: aioredis.Redis, asks: Sequence[Ask]) -> list[float]:
    """For how many seconds each is held."""
    if not asks:
        return []
    keys = [f"{TRIAL}:{tenant}/{service}" for (tenant, service), *_ in asks]
    args = [f"{ask.name} {math.ceil(ask.seconds * 1000)} {int(ask.renews)} {int(ask.takes)}" for ask in asks]
    answers: Any = await redis.eval(_script(), len(keys), *keys, *args)
    return [milliseconds / 1000 for milliseconds in answers]


@cache
def _script() -> str:
    return files("gateway.proxy").joinpath("trials.lua").read_text("utf-8")
