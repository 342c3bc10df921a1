"""Lets operations that are asked for while one round trip is under way share the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import redis

from registry.live.ops import Op

PIPELINE: Final = 128

Send = Callable[[Sequence[Op[Any]]], Awaitable[list[Any]]]
"""One round trip: an answer, or the exception it came to, for each operation."""


class Pump:
    """For one event loop. `timeout` is how long a round trip may take, in seconds."""

    def __init__(self, send: Send, timeout: float) -> None:
        self._send = send
        self._timeout = timeout
        self._waiting: deque[tuple[Op[Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def run(self, op: Op[Any]) -> Any:
        """The raw answer to `op`. Raises what its round trip, or Redis for this one operation, raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((op, future))
        if self._task is None:
            self._task = loop.create_task(self._run_waiting())
        return await future

    async def _run_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), PIPELINE))]
                await self._round_trip([(op, future) for op, future in batch if not future.done()])
        finally:
            self._task = None

    async def _round_trip(self, batch: list[tuple[Op[Any], asyncio.Future[Any]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._send([op for op, _ in batch])
        except BaseException as error:
            for _, future in batch:
                _refuse(future, error)
            if not isinstance(error, Exception):  # cancelled with the loop; those who wait have been told
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                _refuse(future, answer)
            elif not future.done():
                future.set_result(answer)


def _refuse(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else redis.ConnectionError("the store is closed"))
