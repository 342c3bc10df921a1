"""One broadcaster per process: follows the live state once, however many people look at it.

It hears the catalogue's changes, polls the gateway's counters and breaker reports once a second, and lets each
tenant's hub tell its seats, at most four times a second. It starts with the first viewer and rests some minutes after
the last one, so that a page that is reloaded keeps its sparkline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Protocol

import msgspec

from anumate.faces.hub import Catalogue, Hub, Remembered, Seat
from anumate.faces.picture import Breaker
from anumate.faces.traffic import Totals
from anumate.lib.clock import Clock, wall

TICK = 0.25
BEATS = 4  # ticks between two polls
PATIENCE = 0.5
"""Seconds that a beat waits for a poll: a store that hangs must not hold up the word that it does."""
REMEMBER_SECONDS = 15.0
LINGER_SECONDS = 300.0

logger = logging.getLogger(__name__)


class Poll(msgspec.Struct, frozen=True):
    """The gateway's totals and breakers, each by tenant and service."""

    totals: Mapping[str, Mapping[str, Totals]] = {}
    breakers: Mapping[str, Mapping[str, Breaker]] = {}


class Source(Protocol):
    """Where a broadcaster reads. `registry.live.node` is one; a test brings its own."""

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def stale_since(self) -> float | None: ...

    def listen(self, callback: Callable[[set[tuple[str, str]]], None]) -> object: ...

    def poll(self) -> Coroutine[None, None, Poll]: ...

    async def remember(self, tenant: str) -> Remembered: ...


class Broadcaster:
    """Hands out seats and keeps their hubs current while anybody sits."""

    def __init__(self, source: Source, clock: Clock = wall) -> None:
        self._source = source
        self._clock = clock
        self._hubs: dict[str, Hub] = {}
        self._remembered: dict[str, float] = {}
        self._changed: set[tuple[str, str]] = set()
        self._last_viewed = clock()
        self._task: asyncio.Task[None] | None = None
        self._poll = Poll()
        self._polling: asyncio.Task[Poll] | None = None
        self._troubles: dict[str, str] = {}
        source.listen(self._changed.update)

    async def join(self, tenant: str) -> Seat:
        hub = self._hubs.get(tenant)
        if hub is None:
            hub = self._hubs.setdefault(tenant, Hub(tenant, self._source.catalogue, self._clock()))
            await self._remember(hub)
        hub.stale_since = self._source.stale_since
        seat = hub.sit()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="live page")
        return seat

    def leave(self, seat: Seat) -> None:
        seat.hub.seats.discard(seat)
        self._last_viewed = self._clock()

    async def _run(self) -> None:
        beat = 0
        while self._viewed():
            if beat % BEATS == 0:
                await self._guarded("traffic", self._measure())
            self._refresh()
            beat += 1
            await asyncio.sleep(TICK)
        self._hubs.clear()
        self._remembered.clear()

    def _viewed(self) -> bool:
        if any(hub.seats for hub in self._hubs.values()):
            self._last_viewed = self._clock()
        return self._clock() - self._last_viewed < LINGER_SECONDS

    def _refresh(self) -> None:
        changed, now = self._changed.copy(), self._clock()
        self._changed.clear()
        for tenant, hub in self._hubs.items():
            names = {service for of, service in changed if of == tenant}
            if names:
                hub.refresh(names, now)

    async def _measure(self) -> None:
        try:
            await self._try_poll()
        finally:  # with the store away the page goes on with the figures it had, and says since when
            now = self._clock()
            for tenant, hub in self._hubs.items():
                totals, breakers = self._poll.totals.get(tenant, {}), self._poll.breakers.get(tenant, {})
                hub.measure(totals, breakers, self._source.stale_since, now)
        for hub in list(self._hubs.values()):
            if self._clock() - self._remembered.get(hub.tenant, 0.0) >= REMEMBER_SECONDS:
                await self._remember(hub)

    async def _try_poll(self) -> None:
        """Take new figures if they come soon; one that takes longer goes on, and no second is begun beside it."""
        if self._polling is None:
            self._polling = asyncio.create_task(self._source.poll(), name="live page's poll")
        done, _ = await asyncio.wait((self._polling,), timeout=PATIENCE)
        if done:
            polling, self._polling = self._polling, None
            self._poll = polling.result()

    async def _remember(self, hub: Hub) -> None:
        self._remembered[hub.tenant] = self._clock()
        await self._guarded("the past", self._load(hub))

    async def _load(self, hub: Hub) -> None:
        hub.remember(await self._source.remember(hub.tenant), self._clock())

    async def _guarded(self, what: str, work: Coroutine[None, None, None]) -> None:
        """A database or store that is away costs the page its news, not its life; one line says so."""
        trouble = ""
        try:
            await work
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        if trouble and trouble != self._troubles.get(what):
            logger.warning("The live page goes on without news of %s: %s", what, trouble)
        self._troubles[what] = trouble
