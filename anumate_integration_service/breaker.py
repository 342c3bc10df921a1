"""A circuit breaker: calls to what keeps failing are refused for a while, then tried again with care.

    closed ──too many failures──► open ──open_seconds──► half-open ──enough good trials──► closed
                                   ▲                         │
                                   └─a trial fails or sticks─┘

Pure: time, outcomes and chance are arguments, so nothing here waits, and a test needs no clock. Each change of state
begins a new generation; a ticket of an earlier one no longer counts, so a call that was sent before the breaker opened
says nothing about the time after.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from anumate_integration_service.windows import CountWindow, TimeWindow, Window

State = Literal["closed", "open", "half_open"]
EventKind = Literal["state", "refused", "success", "failure", "slow", "ignored", "exceeded"]
MIDDLE: Final = 0.5
"""The draw that stands for no jitter."""
MOST_DOUBLINGS: Final = 30
HELD_UP_SECONDS: Final = 1.0
"""For how long a trial may wait for its own caller before others may be made in its place."""

log = logging.getLogger(__name__)


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    """An error that says nothing of the callee, as a wrong argument does: counts for nothing, gives its permit back."""
    CANCELLED = "cancelled"
    """Nobody's verdict, as when a caller hung up: counts for nothing and gives its permit back."""


# Looked up once: an attribute of an enum costs as much as the rest of a decision.
_SUCCESS, _FAILURE = Outcome.SUCCESS, Outcome.FAILURE


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how it closes again (terms as in resilience4j).

    It judges the calls of the last `window_seconds` (`window="time"`) or the last `window_calls` (`window="count"`). It
    opens after `consecutive_failures` (0: however many), or once at least `minimum_calls` of the window (never more
    than a count window holds) failed at `failure_rate`, or took longer than `slow_call_seconds` at `slow_call_rate`.

    After `open_seconds` it lets `half_open_calls` trials through; when all of them are good it closes, when one is bad
    it opens again and waits `backoff` times as long, up to `max_open_seconds`. Each wait is spread by +-`jitter` (0.1:
    a tenth), so that many callers do not come back together. Trials that are still out after `half_open_seconds` count
    as bad, together; what a trial waits for its own caller is not the callee's time (see `may_wait`). With
    `metrics_only` it counts and tells its listener, and refuses nothing.
    """

    window_seconds: float = 10.0
    minimum_calls: int = 20
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    slow_call_seconds: float | None = None
    slow_call_rate: float = 1.0
    open_seconds: float = 60.0
    half_open_calls: int = 3
    window: Literal["time", "count"] = "time"
    window_calls: int = 100
    backoff: float = 1.0
    max_open_seconds: float = 300.0
    jitter: float = 0.0
    half_open_seconds: float | None = None
    metrics_only: bool = False

    @property
    def least_calls(self) -> int:
        """How many calls a verdict by rate needs."""
        return self.minimum_calls if self.window == "time" else min(self.minimum_calls, self.window_calls)

    def verdict(self, calls: int, failures: int, slow: int) -> str:
        """Why so many failed or slow calls are too many; empty when they are not."""
        if calls < self.least_calls:
            return ""
        if 0 < failures >= self.failure_rate * calls:
            return self._share(failures, calls, "failed")
        if self.slow_call_seconds is not None and 0 < slow >= self.slow_call_rate * calls:
            return self._share(slow, calls, f"took over {self.slow_call_seconds:g} s")
        return ""

    def _share(self, part: int, calls: int, what: str) -> str:
        if self.window == "count":
            return f"{part} of the last {calls} calls {what}."
        return f"{part} of {calls} calls {what} within {self.window_seconds:g} s."

    def open_wait(self, reopened: int, draw: float) -> float:
        """Seconds to stay open after `reopened` failed trials in a row; `draw` is a number from 0 to 1."""
        grown = self.open_seconds * self.backoff ** min(reopened, MOST_DOUBLINGS)
        # Who asks for a longer first wait than the limit gets it.
        return min(grown, max(self.max_open_seconds, self.open_seconds)) * (1.0 + self.jitter * (2.0 * draw - 1.0))

    def new_window(self) -> Window:
        return TimeWindow(self.window_seconds) if self.window == "time" else CountWindow(self.window_calls)

    def same_window(self, other: BreakerPolicy) -> bool:
        """Whether counts made under the other policy mean the same under this one."""
        if self.window != other.window:
            return False
        if self.window == "time":
            return self.window_seconds == other.window_seconds
        return self.window_calls == other.window_calls


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener hears.

    `state`: the breaker is in another state now, `reason` says why (an operator's force is one too). `refused`: a call
    was not let through. `success`, `failure`, `ignored`: a call was settled; `slow` comes besides. `exceeded`: a
    breaker that must not open, because it is held closed or for metrics only, would have opened; said once until its
    calls are good again.
    """

    kind: EventKind
    at: float
    state: State
    generation: int
    reason: str = ""


Listener = Callable[[Event], None]


@dataclass(eq=False, slots=True)
class Trial:
    """A trial that may wait for its own caller; `held_up` tells for how many seconds it has until a time."""

    since: float
    held_up: Callable[[float], float]


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
    reopened: int = 0
    trials_out: int = 0
    trials_good: int = 0
    trials_aside: int = 0
    """How many have lost their permit, because they waited for their own callers."""
    recovered: bool = False
    """It is closed because trials of its own were good."""
    relapsed: bool = False
    """It is open because trials of its own were bad."""

    @property
    def failure_rate(self) -> float:
        return self.failures / self.calls if self.calls else 0.0


class CircuitBreaker:
    """One breaker. Each call: `acquire` a ticket (None: refused), then `settle` it exactly once.

    Both take a `draw`, a number from 0 to 1, which decides the jitter should the breaker open by it.
    """

    __slots__ = (
        "_aside",
        "_consecutive",
        "_draw",
        "_exceeded",
        "_forced",
        "_listener",
        "_out",
        "_out_since",
        "_reason",
        "_reopened",
        "_since",
        "_state",
        "_successes",
        "_tried",
        "_waited",
        "_waiting",
        "_window",
        "generation",
        "policy",
        "try_until",
    )
    _state: State
    _forced: bool
    _exceeded: bool
    _tried: bool
    _waited: bool
    _consecutive: int
    _successes: int
    _out: int
    _waiting: list[Trial]
    _aside: int

    def __init__(
        self, policy: BreakerPolicy | None = None, now: float = 0.0, *, listener: Listener | None = None
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self.generation = 0
        self.try_until = math.inf
        """From then on no trial is let through, though the wait is over: somebody else may try, who shares its fate."""
        self._listener: Listener | None = None
        self._window = self.policy.new_window()
        self._reopened = 0
        self._become("closed", now, "")
        self._listener = listener

    def acquire(self, now: float, draw: float = MIDDLE) -> int | None:
        """A ticket for one call, or None when the call must not be made."""
        if self._state == "closed":
            return self.generation
        state = self._wake(now, draw)
        if state == "closed":
            return self.generation
        # When a policy with fewer trials came while it is half-open, one more good trial closes it.
        most = max(self.policy.half_open_calls - self._successes, 1)
        if state == "open" or self._trials_out >= most or now >= self.try_until:
            self._tell("refused", now, self._reason)
            return None
        if not self._out:
            self._out_since = now
        self._out += 1
        return self.generation

    def may_wait(self, ticket: int, since: float, held_up: Callable[[float], float]) -> Trial | None:
        """The call that `ticket` was given for, at `since`, may wait for its own caller, as one whose body has yet to
        come. `settle` wants what this answers; None: it is no trial.

        The seconds that it is held up are not the callee's. After `HELD_UP_SECONDS` of them its permit is another's:
        from then on it speaks for the callee when it ends well, and says nothing when it does not.
        """
        if self._state != "half_open" or ticket != self.generation or not self._out:
            return None
        self._out -= 1
        trial = Trial(since, held_up)
        self._waiting.append(trial)
        return trial

    def settle(
        self,
        ticket: int,
        outcome: Outcome,
        now: float,
        duration: float = 0.0,
        draw: float = MIDDLE,
        trial: Trial | None = None,
    ) -> None:
        """What became of the call that `ticket` was given for, and how many seconds it took."""
        if self._state == "half_open":
            self._wake(now, draw)  # a trial may be too late to count
        if ticket != self.generation:
            return
        limit = self.policy.slow_call_seconds
        slow = limit is not None and duration > limit
        counted = outcome is _SUCCESS or outcome is _FAILURE
        if self._listener is not None:
            self._tell_settled(outcome, slow and counted, now)
        if self._state == "closed":
            if counted:
                self._count(outcome is _FAILURE, slow, now, draw)
        elif trial is not None:
            has_its_permit = trial in self._waiting
            if has_its_permit:
                self._waiting.remove(trial)
            if counted and (has_its_permit or not (outcome is _FAILURE or slow)):
                self._judge_trial(outcome is _FAILURE, slow, now, draw)
        elif self._out:
            self._out -= 1
            if counted:
                self._judge_trial(outcome is _FAILURE, slow, now, draw)

    def blame(self, ticket: int, now: float, draw: float = MIDDLE) -> None:
        """The call that `ticket` was given for was settled as good, and failed after all."""
        closed_by_it = self._tried and self._state == "closed" and ticket == self.generation - 1
        if ticket != self.generation and not closed_by_it:
            return
        self._tell("failure", now)
        if self._state == "closed":
            self._count(True, False, now, draw)
        else:
            self._judge_trial(True, False, now, draw)

    def force(self, action: Literal["open", "close", "reset"], now: float, reason: str = "") -> None:
        """What an operator wants: held open, held closed, or closed afresh and automatic again."""
        self._reopened = 0
        self._become("open" if action == "open" else "closed", now, reason, forced=action != "reset")

    def trip(self, now: float, reason: str, draw: float = MIDDLE) -> None:
        """Open, for a reason that others know; what is forced or only measures stays as it is."""
        if self._state == "closed" and not (self._forced or self.policy.metrics_only):
            self._become("open", now, reason, draw=draw)

    def recover(self, now: float, reason: str) -> None:
        """Close, for others tried and it went well; what is forced stays as it is."""
        if self._state != "closed" and not self._forced:
            self._become("closed", now, reason)

    def adopt(self, policy: BreakerPolicy) -> None:
        """Go on under another policy. The state stays; counts of another window are forgotten."""
        if not policy.same_window(self.policy):
            self._window = policy.new_window()
        self.policy = policy

    def retry_in(self, now: float) -> float:
        """Seconds until a refused call may be tried again; 0 when it may now or nobody can say."""
        if self._state != "open" or self._forced or self._waited:
            return 0.0
        return max(0.0, self._since + self.policy.open_wait(self._reopened, self._draw) - now)

    def snapshot(self, now: float) -> Snapshot:
        self._wake(now, MIDDLE)
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
            reopened=self._reopened,
            trials_out=self._trials_out,
            trials_good=self._successes,
            trials_aside=self._aside,
            recovered=self._tried and self._state == "closed",
            relapsed=self._tried and self._state == "open",
        )

    def _wake(self, now: float, draw: float) -> State:
        """What time alone changes. Nothing here runs by itself, so it is caught up on when somebody asks."""
        if self._forced or self._state == "closed":
            return self._state
        policy = self.policy
        if policy.metrics_only:
            self._become("closed", now, "It only measures now.")
            return self._state
        if self._waiting:
            waiting = [trial for trial in self._waiting if trial.held_up(now) < HELD_UP_SECONDS]
            self._aside += len(self._waiting) - len(waiting)
            self._waiting = waiting
        out = self._trials_out
        if self._state == "half_open" and out and policy.half_open_seconds is not None:
            end = self._oldest_trial(now) + policy.half_open_seconds
            if now >= end:
                self._reopen(end, f"{out} trial calls did not end within {policy.half_open_seconds:g} s.", draw)
        if now >= self.try_until:
            if self._state == "half_open" and not out:  # trials that are out may still decide
                self._become("open", now, "Another may try now.")
                self._waited = True
        elif self._state == "open" and not self.retry_in(now):
            self._become("half_open", now, "It was open long enough.")
        return self._state

    @property
    def _trials_out(self) -> int:
        return self._out + len(self._waiting)

    def _oldest_trial(self, now: float) -> float:
        """Since when the trials that are out have had the callee's time."""
        since = [trial.since + trial.held_up(now) for trial in self._waiting]
        return min([*since, self._out_since] if self._out else since)

    def _judge_trial(self, failed: bool, slow: bool, now: float, draw: float) -> None:
        if failed or slow:
            self._reopen(now, "A trial call failed." if failed else "A trial call was too slow.", draw)
            return
        self._successes += 1
        if self._successes >= self.policy.half_open_calls:
            self._become("closed", now, f"{self._successes} trial calls succeeded.")
            self._tried = True

    def _count(self, failed: bool, slow: bool, now: float, draw: float) -> None:
        window = self._window
        window.count(now, failed, slow)
        self._consecutive = self._consecutive + 1 if failed else 0
        if not (window.failures or window.slow or self._exceeded):
            return  # as most calls are: nothing to judge by
        reason = self._verdict()
        if not (self._forced or self.policy.metrics_only):
            if reason:
                self._become("open", now, reason, draw=draw)
        elif bool(reason) is not self._exceeded:
            self._exceeded = bool(reason)
            if reason:
                self._tell("exceeded", now, reason)

    def _verdict(self) -> str:
        """Why it must open; empty when it need not."""
        window = self._window
        if 0 < self.policy.consecutive_failures <= self._consecutive:
            return f"{self._consecutive} calls failed in a row."
        if window.failures or window.slow:
            return self.policy.verdict(window.calls, window.failures, window.slow)
        return ""

    def _reopen(self, now: float, reason: str, draw: float) -> None:
        self._reopened += 1
        self._become("open", now, reason, draw=draw)
        self._tried = True

    def _become(self, state: State, now: float, reason: str, *, forced: bool = False, draw: float = MIDDLE) -> None:
        self._state = state
        self._since = now
        self._reason = reason
        self._forced = forced
        self._draw = draw
        self._tried = False
        self._waited = False
        self._consecutive = 0
        self._successes = 0
        self._out = 0
        self._waiting = []
        self._aside = 0
        self._out_since = now
        self._exceeded = False
        self.generation += 1
        if state == "closed":
            self._reopened = 0
            self._window.clear()
            self._window.roll(now)
        self._tell("state", now, reason)

    def _tell_settled(self, outcome: Outcome, slow: bool, now: float) -> None:
        if slow:
            self._tell("slow", now)
        self._tell("success" if outcome is _SUCCESS else "failure" if outcome is _FAILURE else "ignored", now)

    def _tell(self, kind: EventKind, now: float, reason: str = "") -> None:
        if self._listener is None:
            return
        try:
            self._listener(Event(kind, now, self._state, self.generation, reason))
        except Exception:
            # A call that went well must not fail because somebody could not hear of it.
            log.exception("a breaker's listener failed at %s", kind)
