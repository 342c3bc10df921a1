"""What a watcher of a service is told: who joined, who left, who changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from anumate_integration_service.instances import ServiceInstance


@dataclass(frozen=True, slots=True)
class Joined:
    """It may get traffic now."""

    instance: ServiceInstance


@dataclass(frozen=True, slots=True)
class Left:
    """It gets no traffic any more: gone, taken out by an operator, or unhealthy. `instance` is what was last known."""

    instance: ServiceInstance


@dataclass(frozen=True, slots=True)
class Changed:
    """It stayed and says something else of itself."""

    instance: ServiceInstance
    before: ServiceInstance


Change: TypeAlias = Joined | Left | Changed


class ChangeFeed:
    """An async iterator over one service's changes, for one reader.

    It keeps what the reader was told and which instances differ from that by now, not a queue of events: a slow
    reader is told the latest of each instance once, and what is kept is bounded by the number of instances.
    """

    def __init__(self, current: Callable[[], dict[str, ServiceInstance]]) -> None:
        self._current = current
        self._told: dict[str, ServiceInstance] = {}
        self._differing: dict[str, None] = dict.fromkeys(sorted(current()))
        self._news = asyncio.Event()
        self._closed = False
        self._news.set()

    def __aiter__(self) -> ChangeFeed:
        return self

    async def __anext__(self) -> Change:
        while not self._closed:
            while self._differing and not self._closed:
                instance_id = next(iter(self._differing))
                del self._differing[instance_id]
                if change := self._tell(instance_id):
                    return change
            self._news.clear()
            await self._news.wait()
        raise StopAsyncIteration

    def note(self, instance_ids: Iterable[str]) -> None:
        """These may differ from what the reader was told."""
        current = self._current()
        for instance_id in sorted(instance_ids):
            if self._told.get(instance_id) == current.get(instance_id):
                self._differing.pop(instance_id, None)
            else:
                self._differing[instance_id] = None
        if self._differing:
            self._news.set()

    def close(self) -> None:
        """End the iteration; what has not been read is dropped."""
        self._closed = True
        self._news.set()

    def _tell(self, instance_id: str) -> Change | None:
        before, now = self._told.pop(instance_id, None), self._current().get(instance_id)
        if now is not None:
            self._told[instance_id] = now
            if before is None:
                return Joined(now)
            return Changed(now, before) if now != before else None
        return Left(before) if before is not None else None
