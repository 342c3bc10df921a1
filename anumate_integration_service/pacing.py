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


def full_jitter(failures: int, rng: Random, *, cap: float = LONGEST_RETRY) -> float:
    """How long to wait after this many failures in a row: anything up to a doubling limit, so that a thousand clients
    do not come back in the same second."""
    return rng() * min(cap, FIRST_RETRY * 2.0 ** min(failures - 1, 16))


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
    return asked_for + full_jitter(failures, rng, cap=cap)
