"""Which instance a request by service name goes to, and what is learnt from its answer.

The one core of both HTTP transports: sync, without I/O and without an HTTP library. A transport asks `first`, sends,
says what came of it with `vote`, may ask `again`, and says `end` when the answer is read; then it closes what
`closable` gives it.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from anumate_integration_service.balancing import STRATEGIES, Candidate, Random, Strategy
from anumate_integration_service.breaker import BreakerPolicy, CircuitBreaker, Event, Outcome
from anumate_integration_service.errors import CircuitOpen, NoInstances
from anumate_integration_service.instances import ServiceInstance
from anumate_integration_service.retries import RetryBudget, RetryPolicy

INSTANCE_BREAKER: Final = BreakerPolicy(
    open_seconds=5.0, backoff=2.0, max_open_seconds=60.0, jitter=0.2, half_open_calls=1, half_open_seconds=30.0
)
"""For one instance among several: it costs little to leave it alone, so it is tried again soon."""
SWEEP_SECONDS: Final = 5.0
MOST_GROUPS: Final = 256

Instances = tuple[ServiceInstance, ...]
OnBreaker = Callable[[ServiceInstance, Event], None]


class Directory(Protocol):
    """Who is there. No I/O, and the same tuple object as long as nothing changed."""

    def instances(
        self,
        name: str,
        *,
        version: str = "",
        tags: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        zone: str = "",
    ) -> Instances: ...


class Question(NamedTuple):
    """Whom a request may go to. `endpoint` empty: the one for the scheme."""

    service: str
    scheme: str = "http"
    endpoint: str = ""
    version: str = ""
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    zone: str = ""


class Address(NamedTuple):
    scheme: str
    host: str
    port: int


class Upstream(Candidate):
    """One address of an instance: its connections, its breaker, and what balancing knows of it."""

    __slots__ = ("address", "breaker", "gone", "instance", "pool")

    def __init__(self, instance: ServiceInstance, address: Address, breaker: CircuitBreaker, pool: Any) -> None:
        super().__init__(instance.instance_id, instance.weight)
        self.instance = instance
        self.address = address
        self.breaker = breaker
        self.pool = pool
        self.gone = False


class Attempt:
    """One sending to one upstream. It votes once and ends once."""

    __slots__ = ("ended", "pause", "started", "ticket", "upstream", "voted")

    def __init__(self, upstream: Upstream, ticket: int, started: float, pause: float) -> None:
        self.upstream = upstream
        self.ticket = ticket
        self.started = started
        self.pause = pause
        self.voted = self.ended = False


class Group:
    """Those who answer one question, and which of them are not left alone by their breaker now."""

    __slots__ = ("available", "epoch", "members", "recheck_at", "source", "strategy")

    def __init__(self, strategy: Strategy[Upstream]) -> None:
        self.strategy = strategy
        self.source: Instances | None = None
        self.members: tuple[Upstream, ...] = ()
        self.available: tuple[Upstream, ...] = ()
        self.epoch = -1
        self.recheck_at = 0.0

    def refresh(self, now: float, epoch: int) -> None:
        states = [each.breaker.snapshot(now) for each in self.members]
        available = tuple(each for each, seen in zip(self.members, states, strict=True) if seen.state != "open")
        if available != self.available:  # strategies know their members by the tuple's identity
            self.available = available
        # One that an operator holds open says 0: only an event, which moves the epoch, lets it go.
        self.recheck_at = now + min((seen.retry_in for seen in states if seen.retry_in > 0), default=math.inf)
        self.epoch = epoch


class Call:
    """One request, however often it is sent."""

    __slots__ = ("group", "service", "tried")

    def __init__(self, service: str, group: Group) -> None:
        self.service = service
        self.group = group
        self.tried: list[Upstream] = []


class Upstreams:
    """Every upstream this process talks to. Threads may share it."""

    def __init__(
        self,
        directory: Directory,
        make_pool: Callable[[Address], Any],
        *,
        strategy: str = "p2c",
        breaker: BreakerPolicy | None = INSTANCE_BREAKER,
        retries: RetryPolicy | None = None,
        on_breaker: OnBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Random = random.random,
    ) -> None:
        self._directory = directory
        self._make_pool = make_pool
        self._make_strategy = STRATEGIES[strategy]
        self._policy = breaker or BreakerPolicy(metrics_only=True)
        self.retries = retries or RetryPolicy()
        self._on_breaker = on_breaker
        self.clock = clock
        self._random = rng
        # Re-entrant, because `on_breaker` is called with it held and may well ask something.
        self._lock = threading.RLock()
        self._epoch = 0
        self._groups: dict[Question, Group] = {}
        self._upstreams: dict[tuple[str, str, Address], Upstream] = {}
        self._listed: dict[str, Instances] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._closable: list[Any] = []
        self._swept_at = -math.inf

    def knows(self, service: str) -> bool:
        return bool(self._directory.instances(service))

    def first(self, question: Question, key: str = "") -> tuple[Call, Attempt]:
        """Whom to send a request to; `key` is what the hash strategy hashes.

        Raises:
            NoInstances: nobody is there.
            CircuitOpen: everybody is left alone.
        """
        with self._lock:
            now = self.clock()
            group = self._group(question, now)
            self._budget(question.service).deposit(now)
            call = Call(question.service, group)
            if group.available:
                picked = group.strategy.pick(group.available, now, self._random, key)
                if attempt := self._try(call, picked, now) or self._try_others(call, now):
                    return call, attempt
            waits = [each.breaker.retry_in(now) for each in group.members]
            raise CircuitOpen(question.service, min(waits))

    def again(self, call: Call) -> Attempt | None:
        """Another instance for a request that may be sent again, if there is one and the budget pays."""
        with self._lock:
            now = self.clock()
            retry = len(call.tried)
            budget = self._budget(call.service)
            if retry >= self.retries.attempts or budget.left(now) < 1:
                return None
            attempt = self._try_others(call, now, self.retries.pause(retry, self._random()))
            if attempt is not None:
                budget.withdraw(now)
            return attempt

    def vote(self, attempt: Attempt, outcome: Outcome) -> None:
        """What the attempt says of its instance; only the first vote counts."""
        with self._lock:
            if attempt.voted:
                return
            attempt.voted = True
            now = self.clock()
            took = now - attempt.started
            if outcome in {Outcome.SUCCESS, Outcome.FAILURE}:
                attempt.upstream.observed(now, took, outcome is Outcome.FAILURE)
            attempt.upstream.breaker.settle(attempt.ticket, outcome, now, took, self._random())

    def blame(self, attempt: Attempt) -> None:
        """The answer began well and broke off: a failure after the vote."""
        with self._lock:
            now, breaker = self.clock(), attempt.upstream.breaker
            if (ticket := breaker.acquire(now)) is not None:
                breaker.settle(ticket, Outcome.FAILURE, now, 0.0, self._random())

    def end(self, attempt: Attempt) -> None:
        """Nothing is under way any more. Saying so twice does nothing."""
        with self._lock:
            if attempt.ended:
                return
            attempt.ended = True
            upstream = attempt.upstream
            upstream.ended()
            if upstream.gone and not upstream.in_flight:
                self._closable.append(upstream.pool)

    def closable(self) -> Any | None:
        """The connections of one who left, with nothing under way; each is given once."""
        with self._lock:
            return self._closable.pop() if self._closable else None

    def drop_all(self) -> list[Any]:
        """Forget everybody; answers with all connections there are."""
        with self._lock:
            pools = [*self._closable, *(each.pool for each in self._upstreams.values())]
            self._closable.clear()
            self._upstreams.clear()
            self._groups.clear()
            self._listed.clear()
            return pools

    def _try(self, call: Call, upstream: Upstream, now: float, pause: float = 0.0) -> Attempt | None:
        ticket = upstream.breaker.acquire(now, self._random())
        if ticket is None:
            return None
        call.tried.append(upstream)
        upstream.started()
        return Attempt(upstream, ticket, now + pause, pause)

    def _try_others(self, call: Call, now: float, pause: float = 0.0) -> Attempt | None:
        """The least loaded that takes it. Rare, so the strategy's own order is left as it is."""
        for upstream in sorted(call.group.available, key=lambda each: each.load):
            if upstream.gone or upstream in call.tried:
                continue
            if attempt := self._try(call, upstream, now, pause):
                return attempt
        return None

    def _budget(self, service: str) -> RetryBudget:
        budget = self._budgets.get(service)
        if budget is None:
            policy = self.retries
            budget = self._budgets[service] = RetryBudget(policy.ratio, policy.floor, policy.window_seconds)
        return budget

    def _group(self, question: Question, now: float) -> Group:
        service, _, _, version, tags, capabilities, zone = question
        if now - self._swept_at >= SWEEP_SECONDS:
            self._sweep(now)
        found = self._directory.instances(service, version=version, tags=tags, capabilities=capabilities, zone=zone)
        group = self._groups.get(question)
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                self._groups.clear()
            group = self._groups[question] = Group(self._make_strategy())
        if found is not group.source:
            self._retire(service)
            group.source = found
            group.members = tuple(self._members(question, found, now))
            group.refresh(now, self._epoch)
        elif group.epoch != self._epoch or now >= group.recheck_at:
            group.refresh(now, self._epoch)
        if not group.members:
            raise NoInstances(service)
        return group

    def _members(self, question: Question, found: Instances, now: float) -> Iterable[Upstream]:
        for instance in found:
            address = address_of(instance, question.scheme, question.endpoint)
            if address is not None:
                yield self._upstream(instance, address, now)

    def _upstream(self, instance: ServiceInstance, address: Address, now: float) -> Upstream:
        at = (instance.name, instance.instance_id, address)
        upstream = self._upstreams.get(at)
        if upstream is None:

            def heard(event: Event) -> None:
                self._epoch += event.kind == "state"
                if self._on_breaker is not None:
                    self._on_breaker(instance, event)

            breaker = CircuitBreaker(self._policy, now, listener=heard)
            upstream = self._upstreams[at] = Upstream(instance, address, breaker, self._make_pool(address))
        elif upstream.instance is not instance:
            upstream.instance = instance
            upstream.weight = max(instance.weight, 1)
        return upstream

    def _sweep(self, now: float) -> None:
        """Notice also those who left a service that is not called any more."""
        self._swept_at = now
        for service in list(self._listed):
            self._retire(service)

    def _retire(self, service: str) -> None:
        listed = self._directory.instances(service)
        if listed is self._listed.get(service):
            return
        self._listed[service] = listed
        there = {(each.instance_id, end.host, end.port) for each in listed for end in each.endpoints.values()}
        for at, upstream in list(self._upstreams.items()):
            name, instance_id, address = at
            if name == service and (instance_id, address.host, address.port) not in there:
                del self._upstreams[at]
                upstream.gone = True
                if not upstream.in_flight:
                    self._closable.append(upstream.pool)


def address_of(instance: ServiceInstance, scheme: str, endpoint: str = "") -> Address | None:
    """Where to reach an instance by that scheme: at the endpoint of that name, or else at one for the scheme.

    A plain request may go to an encrypted endpoint, never the other way round.
    """
    if endpoint:
        named = instance.endpoints.get(endpoint)
        if named is None or (scheme == "https" and named.protocol == "http"):
            return None
        return Address("https" if named.protocol == "https" else scheme, named.host, named.port)
    for protocol in ("http", "https") if scheme == "http" else ("https",):
        for each in instance.endpoints.values():
            if each.protocol == protocol:
                return Address(protocol, each.host, each.port)
    return None
