"""The catalogue in a file, so that a service which restarts while the registry is away knows its peers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from anumate_integration_service.instances import ServiceInstance

FORMAT: Final = "anumate-catalogue-1"
LARGEST: Final = 32 * 1024 * 1024
SAVE_PAUSE: Final = 1.0
"""The least time between two writes, in seconds."""
CONFIRM_EVERY: Final = 60.0
"""After how many seconds a file of which nothing changed is written again, to say that it is still so."""

log = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """What the registry last told, and when (Unix time)."""

    heard_at: float
    instances: tuple[ServiceInstance, ...]


class SnapshotFile:
    """One file, of one registry. It is a help, never a need: what goes wrong here is logged and nothing else."""

    def __init__(self, path: str | os.PathLike[str], registry_url: str) -> None:
        self.path = Path(path)
        self._registry = registry_url

    def read(self) -> Snapshot | None:
        """What was saved; None when there is nothing, or nothing that can be used."""
        try:
            with self.path.open("rb") as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                raise ValueError(f"it is larger than {LARGEST} bytes")
            return self._decode(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            log.warning("the snapshot %s is ignored: %s", self.path, error)
            return None

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file as a whole, so that a reader finds the old one or the new one."""
        try:
            data = self._encode(snapshot)
            if len(data) > LARGEST:
                raise ValueError(f"it would be larger than {LARGEST} bytes")
            self._replace(data)
        except (OSError, ValueError, TypeError) as error:
            log.warning("no snapshot was written to %s: %s", self.path, error)

    def _replace(self, data: bytes) -> None:
        # mkstemp makes it 0600: metadata may hold what is not for everybody on this machine.
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise

    def _encode(self, snapshot: Snapshot) -> bytes:
        document = {
            "format": FORMAT,
            "registry": self._registry,
            "heard_at": snapshot.heard_at,
            "services": [instance.as_json() for instance in snapshot.instances],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def _decode(self, data: bytes) -> Snapshot:
        document = json.loads(data)
        if document["format"] != FORMAT or document["registry"] != self._registry:
            raise ValueError("it is not of this registry")
        instances = tuple(ServiceInstance.from_json(item) for item in document["services"])
        return Snapshot(float(document["heard_at"]), instances)


class Saver:
    """Writes in a thread, and no more often than once in `SAVE_PAUSE`."""

    def __init__(self, file: SnapshotFile, current: Callable[[], Snapshot | None]) -> None:
        self._file = file
        self._current = current
        self._news = asyncio.Event()
        self._saved_at = float("-inf")

    def heard(self, *, changed: bool) -> None:
        if changed or time.monotonic() - self._saved_at >= CONFIRM_EVERY:
            self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            await self._save()
            await asyncio.sleep(SAVE_PAUSE)

    async def close(self) -> None:
        """Save once more, so that the file says when this process last heard."""
        await self._save()

    async def _save(self) -> None:
        self._news.clear()
        if (snapshot := self._current()) is not None:
            self._saved_at = time.monotonic()
            await asyncio.to_thread(self._file.write, snapshot)
