"""One tenant's live page, kept current for everyone who looks at it.

A hub holds the picture and turns what changed into one encoded frame for all its seats. A seat is one viewer's short
queue: who reads too slowly loses the queue and gets a snapshot instead, so nobody holds up anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from anumate.faces.journal import Event, breaker_events, merge, service_events
from anumate.faces.picture import Breaker, ServiceView, Summary, next_expiry, summarize, view_service
from anumate.faces.traffic import Meter, Point, Totals, Traffic
from registry.live.instances import Instance

SEAT_FRAMES = 16
JOURNAL_EVENTS = 200
SNAPSHOT_EVENTS = 60

_NEVER = float("inf")


class Catalogue(Protocol):
    """What a hub reads of `registry.live.catalog.Catalog`."""

    def services(self, tenant: str) -> tuple[str, ...]: ...

    def instances(self, tenant: str, service: str) -> tuple[Instance, ...]: ...


class Remembered(msgspec.Struct, frozen=True):
    """What the database knows that the live state does not: every service's name, and what happened before."""

    services: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, tag_field="type", tag="snapshot"):
    """Everything, for a page that has just been opened or has fallen behind."""

    seq: int
    at: float
    tenant: str
    stale_since: float | None
    summary: Summary
    services: tuple[ServiceView, ...]
    breakers: tuple[Breaker, ...]
    traffic: Traffic
    points: tuple[Point, ...]
    events: tuple[Event, ...]


class Change(msgspec.Struct, frozen=True, tag_field="type", tag="change", omit_defaults=True):
    """What became different since the frame before; what is left out is as it was. Events are newest last."""

    seq: int
    at: float
    stale_since: float | None
    summary: Summary | None = None
    services: tuple[ServiceView, ...] = ()
    gone: tuple[str, ...] = ()
    breakers: tuple[Breaker, ...] | None = None
    traffic: Traffic | None = None
    point: Point | None = None
    events: tuple[Event, ...] = ()


class Seat:
    """One viewer's place in the hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._frames: deque[str] = deque()
        self._behind = True
        self._news = asyncio.Event()

    def offer(self, frame: str) -> None:
        if self._behind:
            return  # the snapshot it will get holds this too
        if len(self._frames) >= SEAT_FRAMES:
            self._frames.clear()
            self._behind = True
        else:
            self._frames.append(frame)
        self._news.set()

    async def next(self) -> str:
        """The next frame, when there is one; the first is a snapshot."""
        while True:
            if self._behind:
                self._behind = False
                return self.hub.snapshot()
            if self._frames:
                return self._frames.popleft()
            self._news.clear()
            await self._news.wait()


class Hub:
    """The picture of one tenant. Plain calls change it; nothing here waits for anything but a seat's reader."""

    def __init__(self, tenant: str, catalogue: Catalogue, now: float) -> None:
        self.tenant = tenant
        self.seats: set[Seat] = set()
        self.at = now
        self.seq = 0
        self.stale_since: float | None = None
        self._catalogue = catalogue
        self._kept: set[str] = set()
        self._views: dict[str, ServiceView] = {}
        self._expiries: dict[str, float] = {}
        self._breakers: dict[str, Breaker] = {}
        self._meter = Meter()
        self._events: deque[Event] = deque(maxlen=JOURNAL_EVENTS)
        self._snapshot: tuple[int, float | None, str] = (-1, None, "")
        for name in catalogue.services(tenant):
            self._view(name, now)
        self._summary = self._summarize()

    def sit(self) -> Seat:
        seat = Seat(self)
        self.seats.add(seat)
        return seat

    def remember(self, remembered: Remembered, now: float) -> None:
        """Adds what the database knows. A service without instances stays on the page as long as its row is there."""
        if not self._events:
            self._events.extend(reversed(merge(remembered.events, JOURNAL_EVENTS)))
        self._kept = {name for name, view in self._views.items() if view.instances} | set(remembered.services)
        self.refresh(self._kept ^ self._views.keys(), now)

    def refresh(self, names: Iterable[str], now: float) -> None:
        """Views these services anew, and those whose operator state has just ended; one frame tells what changed."""
        due = [name for name, expiry in self._expiries.items() if expiry <= now]
        changed: list[ServiceView] = []
        gone: list[str] = []
        events: list[Event] = []
        for name in {*names, *due}:
            old, new = self._views.get(name), self._view(name, now)
            if new == old:
                continue
            events += service_events(old, new, now)
            if new is None:
                gone.append(name)
            else:
                changed.append(new)
        if changed or gone:
            self._tell(now, services=tuple(changed), gone=tuple(gone), events=self._journal(events))

    def measure(
        self, totals: Mapping[str, Totals], breakers: Mapping[str, Breaker], stale_since: float | None, now: float
    ) -> None:
        """The beat of the page, once a second: traffic, breakers, and whether the live state is still followed."""
        self.stale_since = stale_since
        self.refresh((), now)
        point = self._meter.take(now, totals)
        events = list(breaker_events(self._breakers, breakers, now))
        news = dict(breakers) if breakers != self._breakers else None
        self._breakers = dict(breakers)
        self._tell(
            now,
            breakers=None if news is None else tuple(news.values()),
            traffic=self._meter.traffic,
            point=point,
            events=self._journal(events),
        )

    def snapshot(self) -> str:
        if self._snapshot[:2] != (self.seq, self.stale_since):
            self._snapshot = (self.seq, self.stale_since, _encode(self._whole()))
        return self._snapshot[2]

    def _whole(self) -> Snapshot:
        return Snapshot(
            seq=self.seq,
            at=self.at,
            tenant=self.tenant,
            stale_since=self.stale_since,
            summary=self._summary,
            services=tuple(self._views.values()),
            breakers=tuple(self._breakers.values()),
            traffic=self._meter.traffic,
            points=tuple(self._meter.points),
            events=tuple(self._events)[-SNAPSHOT_EVENTS:],
        )

    def _view(self, name: str, now: float) -> ServiceView | None:
        instances = self._catalogue.instances(self.tenant, name)
        self._expiries.pop(name, None)
        if instances:
            self._kept.add(name)
        elif name not in self._kept:
            self._views.pop(name, None)
            return None
        if (expiry := next_expiry(instances, now)) != _NEVER:
            self._expiries[name] = expiry
        view = self._views[name] = view_service(name, instances, now)
        return view

    def _summarize(self) -> Summary:
        return summarize(self._views.values(), self._breakers.values())

    def _journal(self, events: Iterable[Event]) -> tuple[Event, ...]:
        listed = tuple(events)
        self._events.extend(listed)
        return listed

    def _tell(
        self,
        now: float,
        *,
        services: tuple[ServiceView, ...] = (),
        gone: tuple[str, ...] = (),
        breakers: tuple[Breaker, ...] | None = None,
        traffic: Traffic | None = None,
        point: Point | None = None,
        events: tuple[Event, ...] = (),
    ) -> None:
        summary = self._summarize()
        told = summary if summary != self._summary else None
        self._summary, self.seq, self.at = summary, self.seq + 1, now
        frame = _encode(Change(self.seq, now, self.stale_since, told, services, gone, breakers, traffic, point, events))
        for seat in self.seats:
            seat.offer(frame)


def _encode(frame: Snapshot | Change) -> str:
    return msgspec.json.encode(frame).decode()
