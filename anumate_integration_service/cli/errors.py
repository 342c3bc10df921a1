"""How a command fails: one line for the person, and an exit status for the script."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_ALLOWED: Final = 4
INTERRUPTED: Final = 130

EXIT_STATUSES: Final = (
    "Exit status: 0 done; 1 the answer is no, or it failed; 2 wrong usage; 3 the platform cannot be reached; "
    "4 the API key does not allow it."
)


class Failure(Exception):
    """Its text is what the person reads; `status` is the exit status."""

    def __init__(self, sentence: str, status: int = FAILED) -> None:
        super().__init__(sentence)
        self.status = status
