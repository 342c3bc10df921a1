"""Keeps the local catalogue as the registry's is: blocking queries by index, and a file for a start in an outage."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from weakref import WeakSet

from anumate_integration_service.catalogue import Catalogue
from anumate_integration_service.changes import ChangeFeed
from anumate_integration_service.errors import RegistrationRefused, RegistryUnavailable
from anumate_integration_service.pacing import Random, full_jitter, retry_pause
from anumate_integration_service.registry_api import Listing, RegistryApi
from anumate_integration_service.snapshot import Saver, Snapshot, SnapshotFile

WATCH_WAIT: Final = 30.0
# Changes that come faster than this are read together.
WATCH_PAUSE: Final = 0.1

log = logging.getLogger(__name__)


class Watcher:
    """Belongs to the event loop that begins it. What it knows outlives it."""

    def __init__(
        self, api: RegistryApi, catalogue: Catalogue, file: SnapshotFile | None, *, rng: Random, longest_retry: float
    ) -> None:
        self.heard_at: float | None = None
        self._api = api
        self._catalogue = catalogue
        self._file = file
        self._random = rng
        self._longest_retry = longest_retry
        self._index = ""
        self._feeds: WeakSet[ChangeFeed] = WeakSet()
        self._saver: Saver | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, *, reachable: bool = True) -> None:
        """Go on watching until `close`. Returns with the first listing taken in, or the file when there is none.

        `reachable` is False when the registry has just failed to answer something else.
        """
        if self._tasks:
            return
        failures = 0 if reachable else 1
        try:
            if reachable:
                await self.fetch()
        except (RegistryUnavailable, RegistrationRefused) as error:
            failures = 1
            log.warning("going on without a listing: %s", error)
        if self.heard_at is None and self._file is not None:
            self._restore(await asyncio.to_thread(self._file.read))
        self.ensure(failures)

    async def fetch(self) -> None:
        """Ask once, now.

        Raises:
            RegistryUnavailable, RegistrationRefused: as the registry answers.
        """
        self._hear(await self._api.services())

    def ensure(self, failures: int = 0) -> None:
        """Watch in the background if that is not yet done."""
        if self._tasks:
            return
        if self._file is not None:
            self._saver = Saver(self._file, self._snapshot)
            self._saver.heard(changed=self._index != "")
            self._tasks.append(asyncio.create_task(self._saver.run(), name="anumate snapshot"))
        self._tasks.append(asyncio.create_task(self._watch(failures), name="anumate watch"))

    def feed(self, name: str) -> ChangeFeed:
        """Changes of the service's instances, beginning with those that are known."""
        feed = ChangeFeed(lambda: self._catalogue.by_id(name), name)
        self._feeds.add(feed)
        return feed

    async def close(self) -> None:
        """Nothing is asked any more, and every feed has ended, once this returns."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for feed in list(self._feeds):
            feed.close()
        saver, self._saver = self._saver, None
        if saver is not None:
            await saver.close()

    async def _watch(self, failures: int) -> None:
        if failures:
            await asyncio.sleep(full_jitter(failures - 1, self._random(), cap=self._longest_retry))
        while True:
            try:
                self._hear(await self._api.services(self._index, WATCH_WAIT))
                failures = 0
                await asyncio.sleep(WATCH_PAUSE)
            except (RegistryUnavailable, RegistrationRefused) as error:
                failures += 1
                if failures == 1:
                    log.warning("going on with what is known: %s", error)
                await asyncio.sleep(retry_pause(error, failures, self._random, cap=self._longest_retry))

    def _hear(self, listing: Listing) -> None:
        self._index, self.heard_at = listing.index, time.monotonic()
        changed = self._catalogue.replace(listing.instances)
        for feed in list(self._feeds):
            if feed.name in changed:
                feed.note(changed[feed.name])
        if self._saver is not None:
            self._saver.heard(changed=bool(changed))

    def _snapshot(self) -> Snapshot | None:
        """What to save; nothing until the registry itself has spoken, lest a file confirm itself."""
        if self.heard_at is None or not self._index:
            return None
        return Snapshot(time.time() - (time.monotonic() - self.heard_at), self._catalogue.instances)

    def _restore(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self._catalogue.replace(snapshot.instances)
        self.heard_at = time.monotonic() - max(0.0, time.time() - snapshot.heard_at)
        log.info("the registry is away; %d instances are known from a file", len(self._catalogue.instances))
