"""Replaces gunicorn's workers one by one: a new one serves before an old one is told to drain.

gunicorn's own HUP starts the new and ends the old at once. No request is lost by that, as the listening socket is
shared, but each that comes meanwhile waits until a new worker has started.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from typing import Final

from anumate.stack.process import READY_WITHIN, Child, StartError

DRAIN_WITHIN: Final = 15.0
"""Seconds beyond what a worker is given for its drain."""

_SERVING = re.compile(r"worker (\d+) is serving$").search
_FAILED = re.compile(r"worker \d+ cannot start\b.*").search
_DRAINED = re.compile(r"worker (\d+) has drained$").search


class Rolling:
    """Follows what the workers of one gunicorn say; `replace` makes them all new."""

    def __init__(self, child: Child, drain_seconds: float) -> None:
        self._child = child
        self._drain_seconds = drain_seconds
        self.serving: list[int] = []
        """Process ids."""
        self._failure = ""
        self._awaited = 0
        """How many shall serve once a worker is there that gunicorn was told to start; it keeps trying."""
        child.listeners.append(self._heard)

    def _heard(self, line: str) -> None:
        if found := _SERVING(line):
            self.serving.append(int(found[1]))
        elif found := _FAILED(line):
            self._failure = found[0]
        elif (found := _DRAINED(line)) and int(found[1]) in self.serving:
            self.serving.remove(int(found[1]))

    async def replace(self) -> float:
        """Make every worker a new one; how many seconds that took.

        Raises:
            StartError: a new worker does not serve, or an old one does not end. The others serve on, and the next call
            goes on from there.
        """
        begun = time.monotonic()
        old = set(self.serving)
        while old & set(self.serving):
            await self._replace_one(old)
        return time.monotonic() - begun

    async def _replace_one(self, old: set[int]) -> None:
        """gunicorn says which: the one it started first, which need not be the one that served first."""
        if not self._awaited:
            self._awaited = len(self.serving) + 1
            self._child.signal(signal.SIGTTIN)
        self._failure = ""
        await self._until(self._one_more, READY_WITHIN, "no new worker serves")
        self._awaited = 0
        left = old & set(self.serving)
        self._child.signal(signal.SIGTTOU)  # gunicorn ends the oldest, and starts no other while it counts that one
        patience = self._drain_seconds + DRAIN_WITHIN
        await self._until(lambda: not left <= set(self.serving), patience, "no old worker ends")

    def _one_more(self) -> bool:
        if len(self.serving) < self._awaited and self._failure:
            raise StartError(f"{self._failure}.")
        return len(self.serving) >= self._awaited

    async def _until(self, condition: Callable[[], object], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise StartError(f"{otherwise} after {seconds:g} s.", tuple(self._child.tail))
            await asyncio.sleep(0.05)
