"""Leave first, stop serving then: a signal handler put before the one that is there."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import FrameType
from typing import Any

Done = Callable[[], None]


class LeaveFirst:
    """On the first signal, begin to `leave`; once that is done, do what would have been done without us.

    A second signal goes straight through: somebody is in a hurry. A handler that was set with
    `loop.add_signal_handler` cannot be put off by anybody; it runs at once, beside this. Make it in the main thread.
    """

    def __init__(self, leave: Callable[[Done], object], numbers: Iterable[int]) -> None:
        self._leave = leave
        self._leaving = False
        self._before: dict[int, Any] = {number: signal.signal(number, self._caught) for number in numbers}

    def remove(self) -> None:
        """Put back what was there, unless somebody else has come after us."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._caught and before is not None:
                signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._leaving:
            self._pass_on(number, frame)
        else:
            self._leaving = True
            # Sent once more, so that the handler before runs as it expects to: in the main thread, by a signal.
            self._leave(lambda: os.kill(os.getpid(), number))

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before = self._before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def on_loop(leave: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[Done], object]:
    """Leave on the running loop."""
    loop = asyncio.get_running_loop()
    leaving: list[asyncio.Task[None]] = []

    async def leave_then(done: Done) -> None:
        try:
            await leave()
        finally:
            done()

    def begin(done: Done) -> None:
        if loop.is_closed():
            done()
        else:
            loop.call_soon_threadsafe(lambda: leaving.append(loop.create_task(leave_then(done))))

    return begin


def in_thread(leave: Callable[[], None]) -> Callable[[Done], object]:
    """Leave in a thread, as a signal handler must not wait."""

    def leave_then(done: Done) -> None:
        try:
            leave()
        finally:
            done()

    return lambda done: threading.Thread(target=leave_then, args=(done,), name="anumate stop", daemon=True).start()
