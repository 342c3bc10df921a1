"""What people configure, on its way to every process: sections of one Redis hash, each with a revision and a digest.

The database is the truth and publishes again and again, so a lost message or a wiped Redis costs time, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import redis
import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError

from anumate.lib.redis import UNAVAILABLE, connect_async
from anumate.lib.tasks import together
from registry.live.backoff import Backoff

logger = logging.getLogger("anumate.sections")

SECTIONS = "anumate:{c}:sections"
CHANNEL = "anumate:sections"
POLL_SECONDS = 0.5
READ_SECONDS = 5.0

OnSection = Callable[[str, bytes], None]


def publish(client: redis.Redis, name: str, *, origin: str, revision: int, body: bytes) -> bool:
    """Put a section before every process. Answers whether its body became another one.

    `origin` names the database: within one database only a greater revision is taken.
    """
    text, sha = _script()
    args = (name, origin, revision, _digest(body), body, CHANNEL)
    try:
        return bool(client.evalsha(sha, 1, SECTIONS, *args))
    except NoScriptError:
        return bool(client.eval(text, 1, SECTIONS, *args))


class SectionReader:
    """Hands each section to `on_section` when it comes and whenever it changes.

    It listens for announcements and looks every 500 ms in case one was lost. With `cache_dir`, bodies that were
    accepted are kept on disk, and `load_cached` hands them out before Redis is asked: a process that restarts in an
    outage serves what it knew. A body that `on_section` refuses by raising leaves the old one in force.
    """

    def __init__(
        self, redis_url: str, names: Iterable[str], on_section: OnSection, cache_dir: Path | None = None
    ) -> None:
        self._url = redis_url
        self._names = tuple(names)
        self._on_section = on_section
        self._cache_dir = cache_dir
        self._digests: dict[str, str] = {}
        self._announced = asyncio.Event()
        self.synced = asyncio.Event()

    def load_cached(self) -> bool:
        """Hand out what an earlier run kept on disk; whether that was anything."""
        if self._cache_dir is None:
            return False
        for name in self._names:
            with contextlib.suppress(OSError):
                self._accept(name, self._path(name).read_bytes())
        return bool(self._digests)

    async def run(self) -> None:
        """Until it is cancelled."""
        await together(self._listen(), self._poll())

    async def _listen(self) -> None:
        backoff = Backoff()
        while True:
            client = connect_async(self._url, read_timeout=None)
            try:
                await client.initialize()  # a cluster's subscription does not ask by itself which servers there are
                async with client.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    backoff.reset()
                    async for _message in subscription.listen():
                        self._announced.set()
            except (RedisError, *UNAVAILABLE) as error:
                logger.debug("not hearing announcements: %s", error)
            finally:
                await client.aclose()
            await backoff.sleep()

    async def _poll(self) -> None:
        # Time limits are ours, not the client's: before Python 3.12 its wait_for can lose a cancellation.
        client = connect_async(self._url, read_timeout=None)
        backoff = Backoff(most=POLL_SECONDS)
        try:
            while True:
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        await self._look(client)
                    self.synced.set()
                    backoff.reset()
                except (RedisError, *UNAVAILABLE) as error:
                    logger.debug("sections cannot be read: %s", error)
                    await backoff.sleep()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._announced.wait()
                self._announced.clear()
        finally:
            await client.aclose()

    async def _look(self, client: aioredis.Redis) -> None:
        digests: Any = await client.hmget(SECTIONS, [f"{name}:digest" for name in self._names])
        for name, digest in zip(self._names, digests, strict=True):
            # No digest: a wiped store. What is known stays until the database publishes again.
            if digest is not None and digest.decode() != self._digests.get(name):
                body: Any = await client.hget(SECTIONS, f"{name}:body")
                if body is not None and self._accept(name, body) and self._cache_dir is not None:
                    await asyncio.to_thread(_write, self._path(name), body)

    def _accept(self, name: str, body: bytes) -> bool:
        # Remembered also when it is refused: the same body would be refused again each half second.
        self._digests[name] = _digest(body)
        try:
            self._on_section(name, body)
        except Exception:
            logger.exception("section %s cannot be used; the last good one stays", name)
            return False
        return True

    def _path(self, name: str) -> Path:
        assert self._cache_dir is not None  # noqa: S101 (callers have asked)
        return self._cache_dir / f"{name}.section"


def _write(path: Path, body: bytes) -> None:
    """Whole or not at all: a crash while writing leaves the old file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(body)
        draft.chmod(0o600)
        draft.replace(path)
    except OSError as error:
        logger.warning("cannot keep %s for a restart: %s", path, error)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@cache
def _script() -> tuple[str, str]:
    text = files("registry.live").joinpath("publish_section.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
