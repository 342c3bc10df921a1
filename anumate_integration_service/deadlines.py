"""How much time there is left, handed on from whoever is asked to whomever it asks.

with deadline(2.0):
    await client.get("http://orders/v1/x")      # and whatever else is called in here: two seconds in all
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ends: ContextVar[float | None] = ContextVar("anumate_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Requests made in here, by this task and those it starts, get no more than this time. An earlier end stays."""
    ends = time.monotonic() + seconds
    outer = _ends.get()
    token = _ends.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        _ends.reset(token)


def remaining() -> float | None:
    """Seconds left, below 0 when it is too late; None when nobody set a deadline."""
    ends = _ends.get()
    return None if ends is None else ends - time.monotonic()
