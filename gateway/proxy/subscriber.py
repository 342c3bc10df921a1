"""Takes each new routing table as it is published: decoded and compiled beside the loop, then swapped in."""

from __future__ import annotations

import asyncio
import logging

from gateway.proxy import heap
from gateway.proxy.live import Compiled, Live

logger = logging.getLogger("anumate.gateway")

SECTION = "routes"


class Subscriber:
    """Given each body of the section `routes`. A burst of them costs one compilation at a time, the newest last."""

    def __init__(self, live: Live, pepper: str = "") -> None:
        self._live = live
        self._pepper = pepper
        self._newest: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    def take(self, body: bytes) -> None:
        self._newest = body
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._load())

    async def settled(self) -> None:
        """Wait until everything that was taken is in force."""
        if self._task is not None:
            await self._task

    async def _load(self) -> None:
        while (body := self._newest) is not None:
            self._newest = None
            try:
                with heap.kept():
                    compiled = await asyncio.to_thread(Compiled, body, self._pepper)
                before = self._live.current.router
                self._live.swap(compiled)
                await asyncio.to_thread(before.dismantle)
            except Exception as error:  # whatever it is, the next table must find this task able to take it
                logger.error("the table published is not one, the last good one stays: %r", error)
