"""When to ask the registry again. Pure: failures in a row and a random number in, seconds out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anumate_integration_service.errors import AnumateError, RegistryUnavailable

Random = Callable[[], float]
"""A number from 0 to 1, 1 excluded."""

JITTER: Final = 0.1
FIRST_RETRY: Final = 0.5
LONGEST_RETRY: Final = 60.0
REFUSED_RETRY: Final = 60.0
LONGEST_RETRY_AFTER: Final = 300.0
MOST_DOUBLINGS: Final = 60
"""Enough for any limit, and no number too large."""


def full_jitter(doublings: int, draw: float, base: float = FIRST_RETRY, cap: float = LONGEST_RETRY) -> float:
    """Seconds to wait: anything up to a limit that was doubled so often, so that those who failed together do not come
    back together. `draw` is a number from 0 to 1.

    From "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return draw * min(cap, base * 2.0 ** min(doublings, MOST_DOUBLINGS))


def beat_pause(interval: float, rng: Random) -> float:
    """Until the next heartbeat: the interval, a tenth more or less, so that no two stay in step."""
    return interval * (1 + JITTER * (2 * rng() - 1))


def retry_pause(error: AnumateError, failures: int, rng: Random, *, cap: float = LONGEST_RETRY) -> float:
    """How long to wait after `error`.

    What the registry asks for with Retry-After is the least, spread on top like any other wait. A refusal will be
    repeated until somebody changes something, so it is asked again seldom.
    """
    if not isinstance(error, RegistryUnavailable):
        return REFUSED_RETRY * (0.5 + rng())
    asked_for = max(0.0, min(error.retry_after or 0.0, LONGEST_RETRY_AFTER))
    return asked_for + full_jitter(failures - 1, rng(), cap=cap)
