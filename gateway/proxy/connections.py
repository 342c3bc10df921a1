"""How many connections of clients a worker holds open, whatever comes on them. One more is told so and closed."""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.admission import RETRY_AFTER

FILES_EACH: Final = 2
"""Open files that a connection may take: its own, and one to an instance."""
FILES_RESERVED: Final = 128
"""For Redis, logs and listening, and for those that are turned away."""
LINGERING: Final = 64
"""So many may stay to read why they were turned away; those beyond are told, and closed at once."""
SAY_SECONDS: Final = 1.0
"""How often the log hears of it."""

logger = logging.getLogger("anumate.gateway.server")


class Connections:
    """Those of one worker; `most` 0 is no limit."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[object] = set()
        self.knocking: set[object] = set()
        """Those that have yet to agree on TLS."""
        self._lingering: set[object] = set()
        self._untold = 0
        self._told = float("-inf")

    def enter(self, connection: object) -> bool:
        """Whether there is room for it, which then is taken."""
        if len(self.open) >= self.most > 0:
            return False
        self.open.add(connection)
        return True

    def knock(self, connection: object, now: float) -> bool:
        """Whether one may come in that has yet to agree on TLS: a few more than there is room for, to be told so."""
        if len(self.open) + len(self.knocking) >= self.most + LINGERING and self.most:
            self._turned_away(now)
            return False
        self.knocking.add(connection)
        return True

    def may_linger(self, connection: object) -> bool:
        """Whether one that is turned away may stay until its client has read why."""
        if len(self._lingering) >= LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def leave(self, connection: object) -> None:
        self.open.discard(connection)
        self.knocking.discard(connection)
        self._lingering.discard(connection)

    def refusal(self, now: float) -> Problem:
        """What one more is told."""
        self._turned_away(now)
        detail = f"This gateway holds {self.most} connections at once."
        return Problem("overloaded", detail, headers=RETRY_AFTER)

    def _turned_away(self, now: float) -> None:
        self._untold += 1
        if now - self._told >= SAY_SECONDS:
            there = len(self.open) + len(self.knocking)
            logger.warning("turned away %d new connections, for %d are open", self._untold, there)
            self._untold, self._told = 0, now

    def fit(self) -> None:
        """Let in no more than there may be open files for: beyond those, nobody could even be turned away."""
        if (files := raise_open_files()) is not None:
            room = max((files - FILES_RESERVED) // FILES_EACH, 1)
            self.most = min(self.most or room, room)


def raise_open_files() -> int | None:
    """Have this process's limit of open files as high as it may raise it; answers with that, None for no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return None if soft == resource.RLIM_INFINITY else soft
