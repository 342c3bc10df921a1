"""Leave first, stop serving then: a signal handler put before the one that is there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable
from types import FrameType
from typing import Any


class LeaveFirst:
    """On the first signal, run `leave` on the loop; once it has ended, do what would have been done without us.

    A second signal goes straight through: somebody is in a hurry. A handler that was set with
    `loop.add_signal_handler` cannot be put off by anybody; it runs at once, beside this.
    """

    def __init__(self, leave: Callable[[], Awaitable[None]], numbers: Iterable[int]) -> None:
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._signalled = False
        for number in numbers:
            self._before[number] = signal.signal(number, self._caught)

    def remove(self) -> None:
        """Put back what was there, unless somebody else has come after us."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._caught and before is not None:
                signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._signalled or self._loop.is_closed():
            self._pass_on(number, frame)
        else:
            self._signalled = True
            self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        self._leaving = asyncio.ensure_future(self._leave_then(number))

    async def _leave_then(self, number: int) -> None:
        try:
            await self._leave()
        finally:
            self._pass_on(number, None)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
