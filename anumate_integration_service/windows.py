"""What a circuit breaker judges by: the calls of the last seconds, or the last so many calls.

Both kinds cost the same however many calls they hold, and both are pure: the time is an argument.
"""

from __future__ import annotations

from typing import Final, Protocol

BUCKETS: Final = 10
FAILED: Final = 1
SLOW: Final = 2


class Window(Protocol):
    """Counts of the calls that are still remembered."""

    calls: int
    failures: int
    slow: int

    def clear(self) -> None:
        """Forget every call."""

    def roll(self, now: float) -> None:
        """Forget what is too old at `now` (seconds on any clock that never goes back)."""

    def count(self, now: float, failed: bool, slow: bool) -> None:
        """Remember one more call."""


class TimeWindow:
    """The calls of the last `seconds`, in ten buckets that are forgotten one by one."""

    __slots__ = ("at", "buckets", "calls", "edge", "failures", "slow", "tick", "width")

    def __init__(self, seconds: float) -> None:
        self.width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        self.buckets = [[0, 0, 0] for _ in range(BUCKETS)]
        self.calls = self.failures = self.slow = self.at = self.tick = 0
        self.edge = 0.0

    def roll(self, now: float) -> None:
        tick = int(now / self.width)
        for _ in range(min(tick - self.tick, BUCKETS)):
            self.at = (self.at + 1) % BUCKETS
            bucket = self.buckets[self.at]
            self.calls -= bucket[0]
            self.failures -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self.tick = max(tick, self.tick)
        self.edge = (self.tick + 1) * self.width

    def count(self, now: float, failed: bool, slow: bool) -> None:
        if now >= self.edge:
            self.roll(now)
        bucket = self.buckets[self.at]
        bucket[0] += 1
        self.calls += 1
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1


class CountWindow:
    """The last `size` calls, whenever they were: a ring in which the newest takes the oldest's place."""

    __slots__ = ("at", "calls", "failures", "ring", "slow")

    def __init__(self, size: int) -> None:
        self.ring = bytearray(max(size, 1))
        self.clear()

    def clear(self) -> None:
        self.ring = bytearray(len(self.ring))
        self.calls = self.failures = self.slow = self.at = 0

    def roll(self, now: float) -> None:
        """Nothing here grows old."""

    def count(self, now: float, failed: bool, slow: bool) -> None:
        at = self.at
        ring = self.ring
        if oldest := ring[at]:
            self.failures -= oldest & FAILED
            self.slow -= oldest // SLOW
        if self.calls < len(ring):
            self.calls += 1
        ring[at] = failed * FAILED + slow * SLOW
        self.failures += failed
        self.slow += slow
        self.at = at + 1 if at + 1 < len(ring) else 0
