"""When a request may be sent again, and after how long.

Retries help against one bad instance and hurt when all are bad: then they are load on what fails because of load. So
they are paid from a budget that requests fill, as in Finagle and Envoy. Pure: time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from anumate_integration_service.pacing import full_jitter
from anumate_integration_service.windows import TimeWindow

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods of which a second sending changes nothing (RFC 9110, 9.2.2)."""
TRY_ELSEWHERE: Final = frozenset({502, 503, 504})
"""Answers that say: not here, not now."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often one request is sent at most (`attempts`, the first included), and what retries may cost in all.

    Within `window_seconds` there are at most `floor` retries and `ratio` of the requests besides. The first retry goes
    out at once, to another instance; each later one waits up to `base_seconds`, twice as long each time, and never more
    than `max_seconds`.
    """

    attempts: int = 3
    ratio: float = 0.2
    floor: int = 3
    window_seconds: float = 10.0
    base_seconds: float = 0.025
    max_seconds: float = 1.0

    def pause(self, retry: int, draw: float) -> float:
        """Seconds to wait before the retry of that number (1: the first); `draw` is a number from 0 to 1."""
        return 0.0 if retry < 2 else full_jitter(retry - 2, draw, self.base_seconds, self.max_seconds)


class RetryBudget:
    """What is left to spend on retries: earned by requests, forgotten with the window."""

    __slots__ = ("_floor", "_ratio", "_requests", "_retries")

    def __init__(self, ratio: float = 0.2, floor: int = 3, window_seconds: float = 10.0) -> None:
        self._ratio = ratio
        self._floor = floor
        self._requests = TimeWindow(window_seconds)
        self._retries = TimeWindow(window_seconds)

    def deposit(self, now: float) -> None:
        """A request is sent for the first time."""
        self._requests.count(now, False, False)

    def withdraw(self, now: float) -> bool:
        """Whether one retry more can be paid; if so, it is."""
        if self.left(now) < 1:
            return False
        self._retries.count(now, False, False)
        return True

    def left(self, now: float) -> float:
        """How many retries can be paid now."""
        self._requests.roll(now)
        self._retries.roll(now)
        return self._floor + self._ratio * self._requests.calls - self._retries.calls
