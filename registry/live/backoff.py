"""Waits between attempts: longer each time, and never in step with other processes (full jitter)."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self._first = first
        self._most = most
        self._attempts = 0

    def reset(self) -> None:
        self._attempts = 0

    def next(self) -> float:
        ceiling = min(self._most, self._first * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        return random.uniform(self._first / 2, ceiling)

    async def sleep(self) -> None:
        await asyncio.sleep(self.next())
