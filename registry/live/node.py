"""What every serving process follows: the catalogue, the keys and the sections it asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from anumate.lib import tasks
from anumate.lib.env import Env
from anumate.lib.redis import connect_async
from registry.live.catalog import Catalog
from registry.live.follower import Follower
from registry.live.instances import Key
from registry.live.keys import KeyRing, KeySection, StateSection, TenantSection
from registry.live.sections import SectionReader
from registry.live.store import AsyncStore
from registry.live.usage import ANSWER_SECONDS, TELL_SECONDS

logger = logging.getLogger("anumate.node")

DEFAULT_REDIS_URL: Final = "redis://127.0.0.1:6379"
START_SECONDS: Final = 3.0
KEPT_START_SECONDS: Final = 1.0
"""How long to wait for Redis before serving, and how long with something to serve kept on disk."""
KEEP_SECONDS: Final = 10.0

Job = Callable[[], Awaitable[None]]


class Node:
    """Made before the loop runs, started in it.

    `sections` names more sections than the registry's own; listen to any with `on_section`. `cache_dir` is where the
    last known sections and catalogue are kept for a restart while Redis is away.
    """

    def __init__(self, env: Env, pepper: str, *, sections: Iterable[str] = (), cache_dir: Path | None = None) -> None:
        self._url = env.redis_url or DEFAULT_REDIS_URL
        self._replicas = env.registry_wait_replicas
        self._names = ("keys", "tenants", "states", *sections)
        self._cache_dir = cache_dir
        self._callbacks: dict[str, list[Callable[[bytes], None]]] = defaultdict(list)
        self._jobs: list[Job] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._farewells: list[Callable[[], None]] = []
        self._kept = ""
        self._reader: SectionReader | None = None
        self.leaving = False
        self.catalog = Catalog()
        self.keys = KeyRing(pepper, key_required=env.api_key_required)
        self.on_section("keys", self._take_keys)
        self.on_section("tenants", self._take_tenants)
        self.on_section("states", self._take_states)

    def on_section(self, name: str, callback: Callable[[bytes], None]) -> None:
        """Have `callback` called with each new body of a section. Raising refuses it; the old one stays in force."""
        self._callbacks[name].append(callback)

    def background(self, job: Job) -> None:
        """Have `job` run as long as the node does; it is started again should it fail."""
        self._jobs.append(job)

    def on_leave(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the server is about to stop, and everything that waits had better not."""
        self._farewells.append(callback)

    def leave(self) -> None:
        self.leaving = True
        for callback in self._farewells:
            callback()

    async def start(self) -> None:
        """Take up what was kept on disk, then follow Redis; waits a moment for it, but does not insist."""
        self.redis: aioredis.Redis = connect_async(self._url)
        # One more attempt heals a connection that went stale; more would only keep a caller waiting in an outage.
        self.redis.set_retry(Retry(NoBackoff(), 1))
        self.store = AsyncStore(connect_async(self._url, read_timeout=None), replicas=self._replicas)
        reader = self._reader = SectionReader(self._url, self._names, self._on_section, self._cache_dir)
        # One that cannot be used spoils no other: without instances there are still static addresses and redirects.
        kept = all([self._load_catalog(), reader.load_cached()])
        follower = Follower(self._url, self.catalog)
        jobs = (reader.run, follower.run, self._keep_catalog, self._tell_usage, *self._jobs)
        self._tasks = [asyncio.create_task(_for_ever(job)) for job in jobs]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEPT_START_SECONDS if kept else START_SECONDS):
                await follower.ready.wait()
                await reader.synced.wait()

    async def stop(self) -> None:
        await tasks.end(self._tasks)
        self._tasks = []
        self._write_catalog()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.keys.usage.tell(self.redis)
        await self.store.close()
        await self.redis.aclose()

    def _on_section(self, name: str, body: bytes) -> None:
        for callback in self._callbacks[name]:
            callback(body)

    def _take_keys(self, body: bytes) -> None:
        self.keys.replace(keys=msgspec.json.decode(body, type=KeySection).keys)

    def _take_tenants(self, body: bytes) -> None:
        self.keys.replace(tenants=msgspec.json.decode(body, type=TenantSection).tenants)

    def _take_states(self, body: bytes) -> None:
        states = msgspec.json.decode(body, type=StateSection).states
        self.catalog.set_states({Key.parse(text): fact for text, fact in states.items()})

    @property
    def _catalog_path(self) -> Path | None:
        return self._cache_dir / "catalogue.json" if self._cache_dir else None

    def _load_catalog(self) -> bool:
        """Whether there was one."""
        if self._catalog_path is None:
            return False
        try:
            self.catalog.load(self._catalog_path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("the kept catalogue cannot be used: %s", error)
            return False
        return True

    @property
    def sections_synced(self) -> bool:
        """Whether Redis was heard since the start; before, the sections are what an earlier process kept."""
        return self._reader is not None and self._reader.synced.is_set()

    async def _keep_catalog(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await asyncio.to_thread(self._write_catalog)

    async def _tell_usage(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self.keys.usage.tell(self.redis)

    def _write_catalog(self) -> None:
        path, index = self._catalog_path, self.catalog.index
        if path is None or index == self._kept:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_bytes(self.catalog.dump())
            draft.replace(path)
            self._kept = index
        except OSError as error:
            logger.warning("cannot keep the catalogue for a restart: %s", error)


async def _for_ever(job: Job) -> None:
    while True:
        try:
            await job()
            return
        except Exception:
            logger.exception("a background job failed; it is started again")
            await asyncio.sleep(1.0)


_current: Node | None = None


def set_current(node: Node | None) -> None:
    """Let code that cannot be handed the node (Django's views) find the one of this process."""
    global _current
    _current = node


def get_current() -> Node | None:
    return _current
