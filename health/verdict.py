"""From results to a verdict. Pure: the streak so far, one outcome and the time go in, the next streak comes out.

The rules are Consul's. Results count in rows, a result of the other kind starts the row again, and the counters start
at their thresholds, so the very first result decides. A warning counts as a success.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

import msgspec

from registry.live.instances import Health

Kind = Literal["passed", "warned", "failed"]


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What one probe found, with the sentence that says it. `latency` is in seconds, `status` HTTP's, else 0."""

    kind: Kind
    sentence: str
    latency: float = 0.0
    status: int = 0


class Thresholds(NamedTuple):
    """How many results in a row it takes. `warning` None: failures lead straight to unhealthy."""

    success: int = 2
    failure: int = 3
    warning: int | None = None


class Streak(msgspec.Struct, frozen=True, array_like=True):
    """The row of results a check is in, and the verdict it has led to: since when, and with which sentence."""

    verdict: Health = "unknown"
    since: float = 0.0
    sentence: str = ""
    successes: int = 0
    failures: int = 0


WORST_FIRST: Final[tuple[Health, ...]] = ("unhealthy", "degraded", "healthy", "unknown")


def judge(streak: Streak, outcome: Outcome, thresholds: Thresholds, now: float) -> Streak:
    """The streak after `outcome`. When its verdict is another one, this outcome tipped the scales."""
    first = streak.verdict == "unknown"
    successes = failures = 0
    if outcome.kind == "failed":
        failures = (thresholds.failure if first else streak.failures) + 1
    else:
        successes = (thresholds.success if first else streak.successes) + 1
    verdict = _verdict(streak.verdict, outcome.kind, successes, failures, thresholds)
    if verdict == streak.verdict:
        return Streak(verdict, streak.since, streak.sentence, successes, failures)
    return Streak(verdict, now, outcome.sentence, successes, failures)


def worst(streaks: Iterable[Streak]) -> Streak:
    """The one that speaks for an instance with several checks; a check that has not been made yet has no say."""
    return min(streaks, key=lambda streak: (WORST_FIRST.index(streak.verdict), streak.since))


def _verdict(old: Health, kind: Kind, successes: int, failures: int, thresholds: Thresholds) -> Health:
    if kind != "failed":
        if successes < thresholds.success:
            return old
        return "degraded" if kind == "warned" else "healthy"
    if failures >= thresholds.failure:
        return "unhealthy"
    # Consul would raise a critical check to warning here; a failure should never make a verdict better.
    if thresholds.warning is not None and failures >= thresholds.warning and old != "unhealthy":
        return "degraded"
    return old
