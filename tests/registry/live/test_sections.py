from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from registry.live.sections import SECTIONS, SectionReader, publish
from tests.conftest import eventually


@asynccontextmanager
async def reading(reader: SectionReader) -> AsyncIterator[None]:
    task = asyncio.create_task(reader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def noting(seen: list[bytes]) -> Callable[[str, bytes], None]:
    return lambda name, body: seen.append(body)


def test_only_a_greater_revision_of_one_database_is_taken(store: redis.Redis) -> None:
    assert publish(store, "routes", origin="a", revision=5, body=b"five")
    assert not publish(store, "routes", origin="a", revision=5, body=b"other five")
    assert not publish(store, "routes", origin="a", revision=4, body=b"four")
    assert store.hget(SECTIONS, "routes:body") == b"five"
    assert publish(store, "routes", origin="a", revision=6, body=b"six")
    assert store.hget(SECTIONS, "routes:body") == b"six"


def test_another_database_may_start_lower(store: redis.Redis) -> None:
    publish(store, "routes", origin="a", revision=50, body=b"a")
    assert publish(store, "routes", origin="b", revision=1, body=b"b")


def test_an_equal_body_changes_nothing_but_the_revision(store: redis.Redis) -> None:
    publish(store, "routes", origin="a", revision=1, body=b"same")
    assert not publish(store, "routes", origin="a", revision=2, body=b"same")
    assert store.hget(SECTIONS, "routes:rev") == b"2"


async def test_a_reader_gets_what_is_there_and_each_new_body(store: redis.Redis, redis_url: str) -> None:
    seen: list[bytes] = []
    publish(store, "routes", origin="a", revision=1, body=b"one")
    async with reading(SectionReader(redis_url, ["routes"], noting(seen))):
        await eventually(lambda: seen == [b"one"])
        publish(store, "routes", origin="a", revision=2, body=b"two")
        await eventually(lambda: seen == [b"one", b"two"])


async def test_a_reader_finds_what_nobody_announced(store: redis.Redis, redis_url: str) -> None:
    seen: list[bytes] = []
    async with reading(SectionReader(redis_url, ["routes"], noting(seen))):
        digest = hashlib.sha256(b"quiet").hexdigest()
        store.hset(SECTIONS, mapping={"routes:digest": digest, "routes:body": "quiet"})
        await eventually(lambda: seen == [b"quiet"])


async def test_a_wiped_store_takes_nothing_away(store: redis.Redis, redis_url: str) -> None:
    seen: list[bytes] = []
    publish(store, "routes", origin="a", revision=1, body=b"one")
    async with reading(SectionReader(redis_url, ["routes"], noting(seen))):
        await eventually(lambda: seen)
        store.flushall()
        publish(store, "routes", origin="a", revision=2, body=b"two")
        await eventually(lambda: seen == [b"one", b"two"])


async def test_a_restart_in_an_outage_goes_on_with_what_was_kept(
    store: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    publish(store, "routes", origin="a", revision=1, body=b"one")
    async with reading(SectionReader(redis_url, ["routes"], noting([]), tmp_path)):
        await eventually(lambda: (tmp_path / "routes.section").exists())
    seen: list[bytes] = []
    SectionReader("redis://127.0.0.1:1", ["routes"], noting(seen), tmp_path).load_cached()
    assert seen == [b"one"]


async def test_a_body_that_is_refused_is_neither_kept_nor_asked_for_again(
    store: redis.Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []

    def only_good(name: str, body: bytes) -> None:
        seen.append(body)
        if body == b"bad":
            raise ValueError(body)

    async with reading(SectionReader(redis_url, ["routes"], only_good, tmp_path)):
        for revision, body in enumerate((b"good", b"bad", b"better"), start=1):
            publish(store, "routes", origin="a", revision=revision, body=body)
            await eventually(lambda body=body: body in seen)
            await eventually(lambda: (tmp_path / "routes.section").exists())
            if body == b"bad":
                assert (tmp_path / "routes.section").read_bytes() == b"good"
        await eventually(lambda: (tmp_path / "routes.section").read_bytes() == b"better")
    assert seen == [b"good", b"bad", b"better"]
    assert "section routes cannot be used" in caplog.text
