"""Time and randomness as values that are handed in, so that a test can hand in its own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds. Wall clocks count from the epoch, monotonic clocks from anywhere."""

wall: Clock = time.time
monotonic: Clock = time.monotonic


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
