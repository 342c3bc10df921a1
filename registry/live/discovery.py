"""Who is there, as machines are told: filters, the items of an answer, and waiting until something changes."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from registry.live.bodies import Fault, invalid
from registry.live.catalog import Catalog, Pair
from registry.live.instances import WORDS, Document, Endpoint, Instance, Key
from registry.live.ops import Index

T = TypeVar("T")

STATUSES: Final = ("healthy", "degraded", "unhealthy", "unknown", "any")
MAX_WAIT: Final = 600.0
DEFAULT_WAIT: Final = 300.0
"""Seconds, where `wait` is given without a duration; both limits are Consul's."""
JITTER: Final = 1 / 16
# The loop's clock is not the wall's: a wait ends a little late rather than before the state has ended.
_LATE: Final = 0.01
_UNITS: Final = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0))
_ONCE: Final = frozenset({"service_name", "version", "status", "zone", "zone_strict", "index", "wait"})
_ANYTHING: Final = ("", "")
_OFTEN: Final = frozenset({"capability", "tag"})


class ServiceItem(msgspec.Struct, frozen=True):
    """An instance as it is told to those who look for it."""

    name: str
    instance_id: str
    version: str
    endpoints: dict[str, Endpoint]
    capabilities: tuple[str, ...]
    tags: tuple[str, ...]
    zone: str
    weight: int
    metadata: dict[str, str]
    lease_ttl: int
    status: str
    state: str
    registered_at: datetime
    expires_at: datetime


class Listing(msgspec.Struct, frozen=True):
    """The answer of discovery, and the data of a watcher's event."""

    index: str
    services: tuple[ServiceItem, ...]


class Query(msgspec.Struct, frozen=True):
    """What somebody looks for. `wait` is None when they want an answer now.

    `zone` is where they would like it to be: of each service the instances of that zone, and where none of those fits,
    all others. With `zone_strict`, or with a `status` (who asks that inspects, and calls nobody), only that zone.
    """

    service_name: str = ""
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    zone: str = ""
    zone_strict: bool = False
    status: str = ""
    version: SpecifierSet | None = None
    index: Index | None = None
    wait: float | None = None

    def wants(self, instance: Instance, now: float) -> bool:
        """Without a status, only who may get traffic; with one, whatever the operator's state."""
        if self.status:
            if self.status not in {"any", instance.health}:
                return False
        elif not instance.eligible(now):
            return False
        return self._fits(instance.document)

    def _fits(self, document: Document) -> bool:
        return (
            (not self.capabilities or set(self.capabilities) <= set(document.capabilities))
            and (not self.tags or set(self.tags) <= set(document.tags))
            and (self.version is None or matches(self.version, document.version))
        )

    def find(self, catalog: Catalog, tenant: str, now: float) -> Iterator[Instance]:
        """In one order: by service, then by instance id."""
        for service in (self.service_name,) if self.service_name else catalog.services(tenant):
            found = (each for each in catalog.instances(tenant, service) if self.wants(each, now))
            yield from self._nearest(found) if self.zone else found

    def _nearest(self, found: Iterable[Instance]) -> list[Instance]:
        """Of one service's instances those in the zone; where there are none, the others if they may be told."""
        every = list(found)
        near = [instance for instance in every if instance.document.zone == self.zone]
        return near if near or self.zone_strict or self.status else every


def parse_query(text: str) -> Query:
    """Raises Problem `validation_failed` that names every parameter at fault.

    Empty parameters say nothing, but for `wait`: that waits as long as is usual.
    """
    once: dict[str, str] = {}
    often: dict[str, list[str]] = defaultdict(list)
    errors: list[Fault] = []
    for name, value in parse_qsl(text, keep_blank_values=True):
        if not value and name != "wait":
            continue
        if name in _OFTEN:
            often[name].append(value)
        elif name not in _ONCE:
            errors.append(_fault(name, "This parameter is not known."))
        elif name in once:
            errors.append(_fault(name, "Give this parameter once."))
        else:
            once[name] = value
    status = once.get("status", "")
    if status and status not in STATUSES:
        errors.append(_fault("status", f"Use one of {', '.join(STATUSES)}."))
    strict = _parsed("zone_strict", once, _truth, "Use true or false.", errors)
    version = _parsed("version", once, _specifier, "Use a version or constraints like >=1.2,<2.", errors)
    index = _parsed("index", once, Index.parse, "Use an index that an answer gave.", errors)
    wait = _parsed("wait", once, _duration, "Use a duration of up to 10 minutes, like 30s or 5m.", errors)
    if errors:
        raise invalid(errors)
    return Query(
        once.get("service_name", ""),
        tuple(often["capability"]),
        tuple(often["tag"]),
        once.get("zone", ""),
        bool(strict),
        status,
        version,
        index,
        wait,
    )


@lru_cache(4096)
def matches(constraint: SpecifierSet, version: str) -> bool:
    """Whether a version is within the constraints. What is no version by PEP 440 is within none."""
    try:
        return constraint.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


class Items:
    """Instances as JSON, each encoded once until something about it changes.

    When a lease lapses is not in the catalogue, because each heartbeat moves it. It is read from the store now and
    then, between `start_refresh` and `refresh`, while what this process renewed itself is known exactly.
    """

    def __init__(self) -> None:
        self._expiries: dict[str, float] = {}
        self._renewed: dict[str, float] = {}
        self._encoded: dict[str, tuple[Instance, float, str, int, bytes]] = {}

    def encode(self, instances: Iterable[Instance], index: str, now: float) -> bytes:
        """The body of an answer."""
        items = b",".join([self._item(instance, now) for instance in instances])
        return b'{"index":"%b","services":[%b]}' % (index.encode(), items)

    def renewed(self, key: Key, expires_at: float) -> None:
        self._expiries[str(key)] = self._renewed[str(key)] = expires_at

    def start_refresh(self) -> None:
        self._renewed = {}

    def refresh(self, expiries: dict[str, float]) -> None:
        """Take over what the store said; what was renewed here meanwhile is newer. Who holds no lease is forgotten."""
        expiries.update(self._renewed)
        self._expiries = expiries
        for key in self._encoded.keys() - expiries.keys():
            del self._encoded[key]

    def _item(self, instance: Instance, now: float) -> bytes:
        key, state, weight = str(instance.key), instance.state(now), instance.weight(now)
        expires_at = self._expiries.get(key) or instance.registered_at + instance.document.lease_ttl
        known = self._encoded.get(key)
        if known is not None and known[0] is instance and known[1:4] == (expires_at, state, weight):
            return known[4]
        encoded = msgspec.json.encode(item(instance, state, weight, expires_at))
        self._encoded[key] = (instance, expires_at, state, weight, encoded)
        return encoded


def item(instance: Instance, state: str, weight: int, expires_at: float) -> ServiceItem:
    key, document = instance.key, instance.document
    return ServiceItem(
        key.service,
        key.id,
        document.version,
        document.endpoints,
        document.capabilities,
        document.tags,
        document.zone,
        weight,
        document.metadata,
        document.lease_ttl,
        instance.health,
        state,
        moment(instance.registered_at),
        moment(expires_at),
    )


def moment(seconds: float) -> datetime:
    """To the millisecond, which is what the store keeps."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


class Ends:
    """When operators' states end by themselves, service by service. Nothing is written then, so no change tells."""

    def __init__(self, catalog: Catalog, tenant: str) -> None:
        self._catalog = catalog
        self._tenant = tenant
        self._next: dict[str, float] = {}

    def look(self, services: Iterable[str], now: float) -> None:
        """Learn the earliest end after `now` of each of these services."""
        for service in services:
            instances = self._catalog.instances(self._tenant, service)
            facts = (instance.facts.get(kind) for instance in instances for kind in WORDS)
            ends = [fact.expires_at for fact in facts if fact and fact.expires_at > now]
            if ends:
                self._next[service] = min(ends)
            else:
                self._next.pop(service, None)

    def passed(self, now: float) -> set[str]:
        """The services of which an end has come since they were looked at."""
        return {service for service, at in self._next.items() if at <= now}

    def seconds(self, now: float) -> float:
        """How long until the first one; infinite when none is known."""
        return max(min(self._next.values(), default=math.inf) - now, 0.0) + _LATE


class Changes:
    """Lets requests wait until something of a service, or of a whole tenant, has changed after an index."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiting: dict[Pair, set[asyncio.Future[bool]]] = defaultdict(set)
        catalog.listen(self._wake_those_behind)
        catalog.watch(self._wake)
        catalog.listen_unnumbered(partial(self._wake, at_once=True))

    def since(self, index: Index, tenant: str, service: str) -> bool:
        """Whether it changed after `index`; an index of another store says nothing, so that counts as changed."""
        position = self._catalog.position
        return index.epoch != position.epoch or self._catalog.changed_at(tenant, service) > index.seq

    async def wait(
        self,
        index: Index,
        tenant: str,
        service: str,
        seconds: float,
        *,
        until: asyncio.Future[Any] | None = None,
        stop: Callable[[], bool] = bool,
        ask_again: Callable[[], float] = lambda: MAX_WAIT,
    ) -> None:
        """Return once something changed after `index` or an operator's state ended, or when the time is up.

        Sooner when `until` is done, or when `stop` says so. That is asked after `look_again`, and when the seconds that
        `ask_again` gives have passed.
        """
        now, ends = time.time(), Ends(self._catalog, tenant)
        ends.look((service,) if service else self._catalog.services(tenant), now)
        clock = asyncio.get_running_loop().time
        end = clock() + min(seconds, ends.seconds(now))
        while not (self.since(index, tenant, service) or stop() or (until and until.done())):
            if (left := end - clock()) <= 0 or await self._next(tenant, service, min(left, ask_again()), until):
                return

    def look_again(self) -> None:
        """Have everyone who waits ask again whether to stop."""
        for pair in list(self._waiting):
            self._wake_one(pair, at_once=False)

    async def catch_up(self, index: Index, seconds: float) -> None:
        """Return once this process knows what another one answered with `index`, or when the time is up."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while self._behind(index) and (left := end - clock()) > 0:
            await self._next(*_ANYTHING, left)

    def _behind(self, index: Index) -> bool:
        position = self._catalog.position
        return index.epoch == position.epoch and index.seq > position.seq

    async def _next(self, tenant: str, service: str, seconds: float, until: asyncio.Future[Any] | None = None) -> bool:
        """Wait for the next change, for `until` or for so long; whether it is a change that no index tells."""
        # One future and one timer: a thousand may be woken in one turn of the loop, where each task more would count.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _end, future)
        waiting = self._waiting[tenant, service]
        waiting.add(future)
        end = partial(_end, future)
        if until is not None:
            until.add_done_callback(end)
        try:
            return await future
        finally:
            timer.cancel()
            if until is not None:
                until.remove_done_callback(end)
            waiting.discard(future)
            if not waiting:
                self._waiting.pop((tenant, service), None)

    def _wake(self, pairs: set[Pair], *, at_once: bool = False) -> None:
        for pair in pairs | {(tenant, "") for tenant, _ in pairs}:
            self._wake_one(pair, at_once)

    def _wake_those_behind(self, _pairs: set[Pair]) -> None:
        self._wake_one(_ANYTHING, at_once=False)

    def _wake_one(self, pair: Pair, at_once: bool) -> None:
        for future in self._waiting.get(pair, ()):
            if not future.done():
                future.set_result(at_once)


def _end(future: asyncio.Future[bool], _done: object = None) -> None:
    if not future.done():
        future.set_result(False)


def _parsed(
    name: str, once: Mapping[str, str], parse: Callable[[str], T], sentence: str, errors: list[Fault]
) -> T | None:
    if name not in once:
        return None
    try:
        return parse(once[name])
    except ValueError:  # a wrong specifier is one too
        errors.append(_fault(name, sentence))
        return None


def _fault(name: str, detail: str) -> Fault:
    return {"pointer": f"/{name}", "detail": detail}


@lru_cache(1024)
def _specifier(text: str) -> SpecifierSet:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        return SpecifierSet(f"=={text}")


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def patience(wait: float, chance: float) -> float:
    """How long to wait at most, in seconds: up to a sixteenth longer than asked, so that not all end together.

    `chance` is a random number from 0 to 1.
    """
    return wait * (1 + JITTER * chance)


def _duration(text: str) -> float:
    """Seconds, of a duration like 30s, 5m, 250ms or 30; raises ValueError."""
    if not text:
        return DEFAULT_WAIT
    unit, factor = next((unit, factor) for unit, factor in _UNITS if text.endswith(unit))
    number = text.removesuffix(unit) if unit else text
    if not (number.isascii() and number.replace(".", "", 1).isdigit() and len(number) <= 10):
        raise ValueError(text)
    if (seconds := float(number) * factor) > MAX_WAIT:
        raise ValueError(text)
    return seconds
