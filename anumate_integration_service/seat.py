"""Which of several workers on one machine speaks for an instance.

Workers behind one port are one instance, so one of them registers it and keeps its lease; that one holds the seat. The
others wait for it. Each also counts as a member, so that the last one to leave knows it and can say good-bye.

Both are advisory locks on files (`flock`): the kernel lets go of them when a process ends, however it ends.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX: each process is on its own
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class Seat:
    """One process's claim. `subject` is what workers must have in common to be one instance."""

    def __init__(self, *subject: str, directory: Path | None = None) -> None:
        # Hashed, as the subject holds an API key: workers of two tenants are not one instance.
        digest = hashlib.sha256("\n".join(subject).encode()).hexdigest()[:24]
        self._stem = (directory or Path(tempfile.gettempdir())) / f"anumate-{_user()}-{digest}"
        self._seat: int | None = None
        self._membership: int | None = None
        self._alone = fcntl is None

    @property
    def taken(self) -> bool:
        """Whether this process is the one that speaks."""
        return self._alone or self._seat is not None

    def take(self) -> bool:
        """Become a member and take the seat if it is free. Answers whether this process has it."""
        if self.taken:
            return True
        try:
            if self._membership is None:
                self._membership = self._lock("members", shared=True)
            if self._membership is not None:
                self._seat = self._lock("seat", shared=False)
        except OSError as error:
            # Two that speak do no harm, as the registry takes them for one; none at all would.
            log.warning("workers cannot agree on who keeps the lease, so each does: %s", error)
            self._alone = True
        return self.taken

    def leave(self) -> bool:
        """Stop being a member. Answers whether nobody else is one; then the seat is kept until `release`.

        Two that leave at once cannot both see the other: each lets go of its own membership before it looks.
        """
        if self._alone:
            return True
        if self._membership is None:
            return False
        fcntl.flock(self._membership, fcntl.LOCK_UN)
        if _try(self._membership, fcntl.LOCK_EX):
            return True
        self.release()
        return False

    def release(self) -> None:
        """Let go of everything."""
        held, self._seat, self._membership = (self._seat, self._membership), None, None
        for handle in held:
            if handle is not None:
                with suppress(OSError):
                    os.close(handle)

    def after_fork(self) -> None:
        """In the child: the parent's locks are the parent's. Closing the copies does not unlock what it holds."""
        self.release()

    def _lock(self, what: str, *, shared: bool) -> int | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(f"{self._stem}.{what}", flags, 0o600)
        if _try(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            return handle
        os.close(handle)
        return None


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
