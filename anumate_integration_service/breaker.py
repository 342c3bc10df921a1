"""A circuit breaker: calls to what keeps failing are refused for a while, then tried again with care.

    closed ──too many failures──► open ──open_seconds──► half-open ──enough good trials──► closed
                                   ▲                         │
                                   └──────a trial fails──────┘

Pure: time and outcomes are arguments, so nothing here waits, and a test needs no clock. Each change of state begins a
new generation; a ticket of an earlier one no longer counts, so a call that was sent before the breaker opened says
nothing about the time after.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]
BUCKETS: Final = 10


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    """Nobody's verdict, as when a caller hung up: counts for nothing and gives its permit back."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how it closes again (terms as in resilience4j).

    It opens after `consecutive_failures`, or once `minimum_calls` within `window_seconds` failed (or were slower than
    `slow_call_seconds`) at the given rate. After `open_seconds` it lets `half_open_calls` trials through; when all of
    them are good it closes.
    """

    window_seconds: float = 10.0
    minimum_calls: int = 20
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    slow_call_seconds: float | None = None
    slow_call_rate: float = 1.0
    open_seconds: float = 60.0
    half_open_calls: int = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker at one moment. Times are spans, so that a reader needs no common clock."""

    state: State
    forced: bool
    generation: int
    reason: str
    seconds_in_state: float
    retry_in: float
    calls: int
    failures: int
    slow_calls: int
    consecutive_failures: int

    @property
    def failure_rate(self) -> float:
        return self.failures / self.calls if self.calls else 0.0


class _Window:
    """Counts of the last `seconds`, kept in buckets that are forgotten one by one."""

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


class CircuitBreaker:
    """One breaker. Each call: `acquire` a ticket (None: refused), then `settle` it exactly once."""

    __slots__ = (
        "_consecutive",
        "_forced",
        "_permits",
        "_reason",
        "_since",
        "_state",
        "_successes",
        "_window",
        "generation",
        "policy",
    )

    def __init__(self, policy: BreakerPolicy | None = None, now: float = 0.0) -> None:
        self.policy = policy or BreakerPolicy()
        self.generation = 0
        self._window = _Window(self.policy.window_seconds)
        self._consecutive = 0
        self._permits = self.policy.half_open_calls
        self._become("closed", now, "")

    def acquire(self, now: float) -> int | None:
        """A ticket for one call, or None when the call must not be made."""
        if self._state == "closed":
            return self.generation
        self._wake(now)
        if self._state == "open" or not self._permits:
            return None
        self._permits -= 1
        return self.generation

    def settle(self, ticket: int, outcome: Outcome, now: float, duration: float = 0.0) -> None:
        """What became of the call that `ticket` was given for, and how many seconds it took."""
        if ticket != self.generation:
            return
        limit = self.policy.slow_call_seconds
        slow = limit is not None and duration > limit
        if self._state == "closed":
            if outcome is not Outcome.CANCELLED:
                self._count(outcome is Outcome.FAILURE, slow, now)
        elif outcome is Outcome.CANCELLED:
            self._permits += 1
        elif outcome is Outcome.FAILURE or slow:
            self._become(
                "open", now, "A trial call was too slow." if outcome is Outcome.SUCCESS else "A trial call failed."
            )
        else:
            self._successes += 1
            if self._successes >= self.policy.half_open_calls:
                self._become("closed", now, f"{self._successes} trial calls succeeded.")

    def force(self, action: Literal["open", "close", "reset"], now: float, reason: str = "") -> None:
        """What an operator wants: held open, held closed, or closed afresh and automatic again."""
        self._become("open" if action == "open" else "closed", now, reason)
        self._forced = action != "reset"

    def adopt(self, policy: BreakerPolicy) -> None:
        """Go on under another policy. The state stays; counts of another window's length are forgotten."""
        if policy.window_seconds != self.policy.window_seconds:
            self._window = _Window(policy.window_seconds)
        if more := policy.half_open_calls - self.policy.half_open_calls:
            # With fewer permits than trials to pass, or with none, a half-open breaker could never close.
            self._permits = max(self._permits + more, 1)
        self.policy = policy

    def retry_in(self, now: float) -> float:
        """Seconds until a refused call may be tried again; 0 when it may now or nobody can say."""
        if self._state != "open" or self._forced:
            return 0.0
        return max(0.0, self._since + self.policy.open_seconds - now)

    def snapshot(self, now: float) -> Snapshot:
        self._wake(now)
        self._window.roll(now)
        return Snapshot(
            state=self._state,
            forced=self._forced,
            generation=self.generation,
            reason=self._reason,
            seconds_in_state=max(0.0, now - self._since),
            retry_in=self.retry_in(now),
            calls=self._window.calls,
            failures=self._window.failures,
            slow_calls=self._window.slow,
            consecutive_failures=self._consecutive,
        )

    def _wake(self, now: float) -> None:
        if self._state == "open" and not self._forced and now >= self._since + self.policy.open_seconds:
            self._become("half_open", now, "It was open long enough.")

    def _count(self, failed: bool, slow: bool, now: float) -> None:
        window, policy = self._window, self.policy
        window.count(now, failed, slow)
        self._consecutive = self._consecutive + 1 if failed else 0
        if self._forced:
            return
        if self._consecutive >= policy.consecutive_failures:
            self._become("open", now, f"{self._consecutive} calls failed in a row.")
        elif window.calls >= policy.minimum_calls:
            if window.failures >= policy.failure_rate * window.calls:
                self._become("open", now, self._share(window.failures, "failed"))
            elif policy.slow_call_seconds is not None and window.slow >= policy.slow_call_rate * window.calls:
                self._become("open", now, self._share(window.slow, f"took over {policy.slow_call_seconds:g} s"))

    def _share(self, part: int, what: str) -> str:
        return f"{part} of {self._window.calls} calls {what} within {self.policy.window_seconds:g} s."

    def _become(self, state: State, now: float, reason: str) -> None:
        self._state: State = state
        self._since = now
        self._reason = reason
        self._forced = False
        self._consecutive = 0
        self._successes = 0
        self._permits = self.policy.half_open_calls
        self.generation += 1
        if state == "closed":
            self._window.clear()
            self._window.roll(now)
