"""A circuit breaker for each service, the worker's report of them, and what operators force.

Every second a worker writes its id into the sorted set `anumate:{g}:breakers`, scored by the second on Redis' clock
(`present.lua`), and `anumate:{g}:breakers:<worker>`, which lives 5 s:

    {"worker": "…", "at": 1700000000.0, "breakers": [{"tenant": "default", "service": "orders",
     "name": "orders-circuit", "state": "open", "forced": false, "generation": 4, "reason": "5 calls failed in a row.",
     "seconds_in_state": 1.2, "retry_in": 58.8, "calls": 0, "failures": 0, "slow_calls": 0, "failure_rate": 0.0,
     "consecutive_failures": 0, "trials_out": 0, "recovered": false}], "table_revision": 12, "left_out": [{"tenant":
     "default", "service": "orders", "instance": "orders-1", "seconds": 28.5, "reason": "5 requests in a row failed."}]}

Operators write `anumate:{g}:force` and announce on `anumate:force`; a worker adopts each generation once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
import redis.asyncio as aioredis
from redis.exceptions import RedisError

from anumate.lib import clock
from anumate.lib.env import Env
from anumate.lib.problem import Problem
from anumate.lib.tasks import together
from anumate_integration_service.breaker import BreakerPolicy, CircuitBreaker, Outcome, Trial
from gateway.proxy.quorum import Heard, Quorum
from gateway.proxy.reports import (
    FORCE,
    FORCE_CHANNEL,
    REPORTS,
    BreakerReport,
    Force,
    LeftOut,
    Skipped,
    WorkerReport,
    key_of_report,
    read_reports,
)
from gateway.proxy.table import Upstream

logger = logging.getLogger("anumate.guard")

REPORT_SECONDS: Final = 1.0
REPORT_LIFE: Final = 5
GONE_SECONDS: Final = 60
START_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 2.0

Pair = tuple[str, str]


class Guard:
    """This worker's breakers; they survive every publish."""

    def __init__(
        self,
        env: Env,
        worker: str,
        monotonic: clock.Clock = clock.monotonic,
        left_out: Callable[[float], tuple[LeftOut, ...]] = lambda now: (),
        skipped: Callable[[], tuple[Skipped, ...]] = tuple,
    ) -> None:
        self._worker = worker
        self._left_out = left_out
        self._skipped = skipped
        self._now = monotonic
        self._default = BreakerPolicy(
            consecutive_failures=env.circuit_breaker_failure_threshold,
            open_seconds=env.circuit_breaker_recovery_timeout,
        )
        self._policies: dict[Pair, BreakerPolicy] = {}
        self._breakers: dict[Pair, CircuitBreaker] = {}
        self._forces: dict[Pair, Force] = {}
        self._revision = 0
        self._quorum = Quorum(worker)
        self._asked = asyncio.Event()
        self._retired = False
        self._counted = 0
        self.workers = 0
        """How many workers reported in the last minute, this one included; 0 while Redis does not say. Not known before
        the second report: of workers that begin together, the first would not know of the others."""

    def adopt(self, revision: int, upstreams: Iterable[Upstream], services: Container[Pair]) -> None:
        """Guard these services, each as its upstream says."""
        self._revision = revision
        self._policies = {(each.tenant, each.service): each.breaker for each in upstreams if each.breaker}
        self._breakers = {pair: breaker for pair, breaker in self._breakers.items() if pair in services}
        for pair, breaker in self._breakers.items():
            breaker.adopt(self._policies.get(pair, self._default))

    def enter(self, tenant: str, service: str, now: float, held: Pass | None = None) -> Pass:
        """Leave to send one request to the service, however many of its instances are tried.

        What the request holds already stays good for its service: a breaker that opened meanwhile refuses others.

        Raises:
            Problem: circuit_open.
        """
        if held is not None:
            if held.service == service:
                return held
            held.vote(Outcome.FAILURE, now)  # no instance of it is left that could have answered
        breaker = self._breakers.get((tenant, service)) or self._breaker((tenant, service), now)
        ticket = breaker.acquire(now)
        if ticket is None:
            raise _refusal(service, breaker, now)
        return Pass(service, breaker, ticket, now)

    def _breaker(self, pair: Pair, now: float) -> CircuitBreaker:
        breaker = self._breakers[pair] = CircuitBreaker(self._policies.get(pair, self._default), now)
        breaker.try_until = self._quorum.try_until
        if force := self._forces.get(pair):
            _apply(force, breaker, now)
        return breaker

    def report(self, wall: float) -> WorkerReport:
        now = self._now()
        found = tuple(_report(*pair, breaker, now) for pair, breaker in sorted(self._breakers.items()))
        return WorkerReport(self._worker, wall, found, self._revision, self._left_out(now), self._skipped())

    def force(self, forces: dict[Pair, Force]) -> None:
        """Take over what operators want; a generation that was adopted before changes nothing."""
        now = self._now()
        for pair, force in forces.items():
            known = self._forces.get(pair)
            if known is not None and known.generation >= force.generation:
                continue
            self._forces[pair] = force
            if breaker := self._breakers.get(pair):
                logger.warning("%s-circuit: %s by %s: %s", pair[1], force.action, force.actor, force.reason)
                _apply(force, breaker, now)

    # Talking to Redis

    async def run(self, redis: aioredis.Redis, wall: clock.Clock = clock.wall) -> None:
        """Report and hear operators, until it is cancelled."""
        await together(self._beat(redis, wall), self._listen(redis))

    async def _beat(self, redis: aioredis.Redis, wall: clock.Clock) -> None:
        while True:
            try:
                await self.exchange(redis, wall())
            except (RedisError, OSError) as error:
                logger.debug("breakers are neither reported nor forced: %s", error)
                self._quorum.alone(self._breakers.values())
                self.workers = self._counted = 0
            self._asked.set()
            await asyncio.sleep(REPORT_SECONDS)

    async def settled(self) -> None:
        """Wait a moment for what operators want, so that no request goes by before it is known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await self._asked.wait()

    async def exchange(self, redis: aioredis.Redis, wall: float) -> None:
        """Hear what operators want, report, and decide with the other workers."""
        if self._retired:
            return
        async with asyncio.timeout(ANSWER_SECONDS):
            pipeline = redis.pipeline(transaction=False)
            pipeline.eval(_script(), 1, REPORTS, self._worker, GONE_SECONDS, REPORT_LIFE * 1000)
            pipeline.hgetall(FORCE)
            (counted, *others), forces = await pipeline.execute()
            self.workers = max(counted, self._counted) if self._counted else 0
            self._counted = counted
            self.force(_forces(forces))  # first, or others would add up what an operator has reset
            await redis.set(key_of_report(self._worker), msgspec.json.encode(self.report(wall)), ex=REPORT_LIFE)
            await self._quorum.agree(redis, _heard(others), self._breakers.copy(), self._now)

    async def _listen(self, redis: aioredis.Redis) -> None:
        while True:
            try:
                await redis.initialize()  # a cluster's subscription does not ask by itself which servers there are
                async with redis.pubsub() as subscription:
                    await subscription.subscribe(FORCE_CHANNEL)
                    while True:
                        if await subscription.get_message(ignore_subscribe_messages=True, timeout=1.0):
                            answer: Any = await redis.hgetall(FORCE)
                            self.force(_forces(answer))
            except (RedisError, OSError) as error:
                logger.debug("not hearing operators at once: %s", error)
                await asyncio.sleep(REPORT_SECONDS)

    async def retire(self, redis: aioredis.Redis) -> None:
        """Take the report away: this worker has no breakers any more."""
        self._retired = True
        with contextlib.suppress(RedisError, OSError):  # or else it ends by itself
            async with asyncio.timeout(ANSWER_SECONDS):
                await redis.delete(key_of_report(self._worker))
                await redis.zrem(REPORTS, self._worker)
                await self._quorum.retire(redis)


class Pass:
    """A request's leave to go to a service. It votes once: one dead instance must not speak for all of them."""

    __slots__ = ("_breaker", "_entered", "_ticket", "_trial", "service", "voted")

    def __init__(self, service: str, breaker: CircuitBreaker, ticket: int, now: float) -> None:
        self.service = service
        self._breaker = breaker
        self._ticket = ticket
        self._entered = now
        self._trial: Trial | None = None
        self.voted = False

    def may_wait(self, held_up: Callable[[float], float]) -> None:
        """The request's client has yet to send the rest of its body; `held_up` tells for how many seconds it was waited
        for. That must keep no trial of others from being made.
        """
        if self._trial is None:
            self._trial = self._breaker.may_wait(self._ticket, self._entered, held_up)
            return
        earlier = self._trial.held_up
        self._trial.held_up = lambda now: earlier(now) + held_up(now)  # it is a further try of the request

    def vote(self, outcome: Outcome, now: float, *, held_up: float = 0.0) -> None:
        """Say what came of the request; `held_up` are the seconds for which its client was waited for."""
        if not self.voted:
            self.voted = True
            self._breaker.settle(self._ticket, outcome, now, now - self._entered - held_up, trial=self._trial)

    def blame(self, now: float) -> None:
        """Count a failure that came after the vote: the answer began well and broke off."""
        self._breaker.blame(self._ticket, now)


def _apply(force: Force, breaker: CircuitBreaker, now: float) -> None:
    breaker.force(force.action, now, f"{force.actor}: {force.reason}".strip(": "))


def _refusal(service: str, breaker: CircuitBreaker, now: float) -> Problem:
    wait = max(1, math.ceil(breaker.retry_in(now)))
    detail = f"{service}-circuit is open: the service has been failing."
    return Problem("circuit_open", detail, headers={"Retry-After": str(wait)})


def _report(tenant: str, service: str, breaker: CircuitBreaker, now: float) -> BreakerReport:
    seen = breaker.snapshot(now)
    return BreakerReport(
        tenant=tenant,
        service=service,
        name=f"{service}-circuit",
        state=seen.state,
        forced=seen.forced,
        generation=seen.generation,
        reason=seen.reason,
        seconds_in_state=round(seen.seconds_in_state, 3),
        retry_in=round(seen.retry_in, 3),
        calls=seen.calls,
        failures=seen.failures,
        slow_calls=seen.slow_calls,
        failure_rate=round(seen.failure_rate, 4),
        consecutive_failures=seen.consecutive_failures,
        trials_out=seen.trials_out,
        recovered=seen.recovered,
    )


def _heard(others: list[Any]) -> dict[Pair, list[Heard]]:
    """Of each breaker what the other workers report: names, reports and their ages in milliseconds, in turn."""
    ages = {name.decode(): age / 1000 for name, age in zip(others[::3], others[2::3], strict=True)}
    found: defaultdict[Pair, list[Heard]] = defaultdict(list)
    for report in read_reports(zip(ages, others[1::3], strict=True)):
        for each in report.breakers:
            found[each.tenant, each.service].append(Heard(each, ages.get(report.worker, 0.0)))
    return found


def _forces(raw: dict[bytes, bytes]) -> dict[Pair, Force]:
    found: dict[Pair, Force] = {}
    for field, value in raw.items():
        tenant, _, service = field.decode().partition("/")
        try:
            found[tenant, service] = msgspec.json.decode(value, type=Force)
        except msgspec.DecodeError as error:
            logger.warning("what operators want of %s cannot be read: %s", field.decode(), error)
    return found


@cache
def _script() -> str:
    return files("gateway.proxy").joinpath("present.lua").read_text("utf-8")
