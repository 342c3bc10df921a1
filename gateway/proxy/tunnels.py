"""A worker's open WebSockets. Each is judged again as its handshake was, whenever table, keys, tenants or issuers have
changed and when its key or token ends; one that would not be let in any more is closed, and both sides hear why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

from anumate.lib.clock import Clock
from anumate.lib.problem import Problem
from gateway.proxy.exchange import Exchange
from gateway.proxy.frames import INTERNAL_ERROR, POLICY_VIOLATION
from gateway.proxy.live import Binding
from gateway.proxy.tunnel import Tunnel

logger = logging.getLogger("anumate.gateway")

LOOK_SECONDS: Final = 0.2
SLICE_SECONDS: Final = 0.002
"""For so long some are judged before others get their turn."""
AGAIN_SECONDS: Final = 1.0
"""Until one is judged again whose issuer's keys are not there yet."""


class _Open:
    """One of them. `until` is when its key or token ends, `due` when to look at it again though nothing changed."""

    __slots__ = ("due", "route", "tunnel", "until", "x")

    def __init__(self, tunnel: Tunnel, x: Exchange, route: int) -> None:
        self.tunnel = tunnel
        self.x = x
        self.route = route
        self.until = self.due = _end_of(x)


class Tunnels:
    """`admit` is what lets a handshake in, `era` consists of other objects whenever that may come out differently."""

    def __init__(
        self, admit: Callable[[Exchange], Binding], era: Callable[[], tuple[object, ...]], wall: Clock, now: Clock
    ) -> None:
        self._admit = admit
        self._era = era
        self._wall = wall
        self._now = now
        self._open: set[_Open] = set()
        self._judged_under = era()
        self._due = inf

    @contextmanager
    def watch(self, tunnel: Tunnel, x: Exchange, binding: Binding) -> Iterator[None]:
        """Judge it as long as this lasts."""
        one = _Open(tunnel, x, binding.route.id)
        self._open.add(one)
        self._judge(one)  # what let it in may have changed while its service was asked
        try:
            yield
        finally:
            self._open.discard(one)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        era, wall = self._era(), self._wall()
        changed = any(part is not before for part, before in zip(era, self._judged_under, strict=True))
        if not changed and wall < self._due:
            return
        began = self._now()
        for one in [one for one in self._open if changed or one.due <= wall]:
            if one in self._open:  # others had their turn meanwhile
                self._judge(one)
            if self._now() - began >= SLICE_SECONDS:
                await asyncio.sleep(0)
                began = self._now()
        self._due = min((one.due for one in self._open), default=inf)
        self._judged_under = era

    def _judge(self, one: _Open) -> None:
        x = one.x.handshake_again()
        try:
            binding = self._admit(x)
            if binding.route.id != one.route or binding.route.redirect.status:
                raise Problem("route_not_found", "The route does not take this any more.")
        except Problem as problem:
            now = self._wall()
            if problem.code != "unavailable" or now >= one.until:
                self._close(one, POLICY_VIOLATION, problem)
                return
            one.due = now + AGAIN_SECONDS
        except Exception:  # an error of ours must neither let anybody stay nor keep the others from being judged
            logger.exception("a WebSocket cannot be judged: %s", one.x.request_id.decode())
            self._close(one, INTERNAL_ERROR, Problem("internal_error", "The gateway made a mistake; it is logged."))
            return
        else:
            one.until = one.due = _end_of(x)
        self._due = min(self._due, one.due)

    def _close(self, one: _Open, code: int, problem: Problem) -> None:
        logger.info("closed a WebSocket: %s %s", problem.code, one.x.request_id.decode())
        self._open.discard(one)
        one.tunnel.close(code, problem.detail)


def _end_of(x: Exchange) -> float:
    return (x.client.expires_at if x.client is not None else 0.0) or inf
