"""What the live page shows of services, computed from the catalogue. Pure: instances and a time in, structs out.

The three axes stay apart here too: an instance is shown with its health, with what the operator wants of it, and with
what follows from both: whether it takes traffic, and the sentence that says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

import msgspec

from registry.live.instances import Health, Instance, State

Status = Literal["up", "degraded", "down", "paused", "unknown", "empty"]
BreakerState = Literal["closed", "half_open", "open"]

_GRAVITY: dict[Status, int] = {"down": 0, "degraded": 1, "unknown": 2, "up": 3, "paused": 4, "empty": 5}
_WHOM = {"state": "", "service_state": ", the whole service", "zone_state": ", the whole zone"}
_PAUSED = {"draining": "Draining", "maintenance": "In maintenance"}
_NAMED_AT_ONCE = 2


class InstanceView(msgspec.Struct, frozen=True):
    """One instance as a line of the page. `since` is when the sentence became true, in seconds since the epoch."""

    id: str
    health: Health
    state: State
    traffic: bool
    sentence: str
    since: float
    version: str = ""
    zone: str = ""
    address: str = ""


class ServiceView(msgspec.Struct, frozen=True):
    """One service as a row of the page."""

    name: str
    status: Status
    sentence: str
    instances: tuple[InstanceView, ...] = ()


class Breaker(msgspec.Struct, frozen=True):
    """A service's circuit breaker, merged over the gateway's workers: the state of the one that is least closed."""

    service: str
    state: BreakerState = "closed"
    sentence: str = ""
    since: float = 0.0


class Summary(msgspec.Struct, frozen=True):
    """The page in one sentence and a few figures."""

    status: Status
    headline: str
    detail: str
    services: dict[Status, int]
    instances: int
    taking_traffic: int
    breakers: dict[BreakerState, int]


def view_instance(instance: Instance, now: float) -> InstanceView:
    state = instance.state(now)
    sentence, since = _why(instance, state, now)
    main = next(iter(instance.document.endpoints.values()), None)
    return InstanceView(
        id=instance.key.id,
        health=instance.health,
        state=state,
        traffic=instance.eligible(now),
        sentence=sentence,
        since=since,
        version=instance.document.version,
        zone=instance.document.zone,
        address=f"{main.host}:{main.port}" if main else "",
    )


def view_service(name: str, instances: Iterable[Instance], now: float) -> ServiceView:
    """A service that has no instance left is empty, and not down: nothing of it fails, and it may never come back."""
    views = tuple(view_instance(each, now) for each in instances)
    status = service_status(views)
    return ServiceView(name, status, _service_sentence(status, views), views)


def next_expiry(instances: Iterable[Instance], now: float) -> float:
    """When an operator's state ends by itself and the view must be made anew; infinity when none does."""
    ends = (fact.expires_at for each in instances for fact in each.facts.values() if fact.expires_at > now)
    return min(ends, default=float("inf"))


def service_status(instances: Sequence[InstanceView]) -> Status:
    active = [each for each in instances if each.state == "enabled"]
    if not instances:
        return "empty"
    if not active:
        return "paused"
    if not any(each.traffic for each in active):
        return "down"
    if any(each.health in {"unhealthy", "degraded"} for each in active):
        return "degraded"
    return "up" if any(each.health == "healthy" for each in active) else "unknown"


def summarize(services: Collection[ServiceView], breakers: Iterable[Breaker]) -> Summary:
    counts: dict[Status, int] = dict.fromkeys(get_args(Status), 0)
    for service in services:
        counts[service.status] += 1
    trips: dict[BreakerState, int] = dict.fromkeys(("closed", "half_open", "open"), 0)
    for breaker in breakers:
        trips[breaker.state] += 1
    instances = [each for service in services for each in service.instances]
    status: Status = min((each.status for each in services), key=_GRAVITY.__getitem__, default="unknown")
    return Summary(
        status=status,
        headline=_headline(services),
        detail=f"{_count(len(services), 'service')}, {_count(len(instances), 'instance')}",
        services=counts,
        instances=len(instances),
        taking_traffic=sum(each.traffic for each in instances),
        breakers=trips,
    )


def _why(instance: Instance, state: State, now: float) -> tuple[str, float]:
    if state != "enabled":
        return _operator_sentence(instance, state, now)
    told = [fact for kind in ("probe", "reported") if (fact := instance.facts.get(kind))]
    decisive = next((fact for fact in told if fact.value == instance.health), None)
    if decisive is None:
        return "No check has finished yet.", instance.registered_at
    return decisive.sentence or f"Reported {decisive.value}.", decisive.since or instance.registered_at


def _operator_sentence(instance: Instance, state: State, now: float) -> tuple[str, float]:
    kind, fact = next(instance.words(now))
    by = f", by {fact.source}" if fact.source else ""
    reason = f": {fact.sentence}" if fact.sentence else "."
    return f"{_PAUSED[state]}{_WHOM[kind]}{by}{reason}", fact.since or instance.registered_at


def _service_sentence(status: Status, instances: Sequence[InstanceView]) -> str:
    if not instances:
        return "No instance is registered."
    if status == "paused":
        return instances[0].sentence
    if status == "unknown":
        return "No check has finished yet; it gets traffic meanwhile."
    if status == "up":
        paused = sum(each.state != "enabled" for each in instances)
        return f"{paused} of {len(instances)} out of rotation by the operator." if paused else ""
    active = [each for each in instances if each.state == "enabled"]
    troubled = [each for each in active if each.health in {"unhealthy", "degraded"}]
    first = min(troubled, key=lambda each: each.health != "unhealthy")
    more = f" (and {len(troubled) - 1} more)" if len(troubled) > 1 else ""
    return f"{first.id} is {first.health}{more}: {first.sentence}"


def _headline(services: Collection[ServiceView]) -> str:
    if all(each.status == "empty" for each in services):
        return "No instance is registered." if services else "Nothing is registered yet."
    troubles = [
        _named([each.name for each in services if each.status == status], word)
        for status, word in (("down", "down"), ("degraded", "degraded"))
    ]
    told = [each for each in troubles if each]
    if told:
        return " ".join(told)
    if all(each.status in {"paused", "empty"} for each in services):
        return "Everything is out of rotation by the operator."
    if waiting := [each.name for each in services if each.status == "unknown"]:
        return _named(waiting, "waiting for a first check")
    if any(each.status == "paused" for each in services):
        return "Everything in rotation is up."
    return "Everything is up."


def _named(names: Sequence[str], word: str) -> str:
    if not names:
        return ""
    shown = list(names[:_NAMED_AT_ONCE])
    if rest := len(names) - len(shown):
        shown.append(f"{rest} more")
    text = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{text} {'is' if len(names) == 1 else 'are'} {word}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
