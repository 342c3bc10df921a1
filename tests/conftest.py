"""What tests of every part share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis
import uvicorn

from anumate.lib.redis import connect, connect_async
from tests import environment

# One of these is among what a test asks for, directly or not, whenever it has the database.
DATABASE_FIXTURES = {"django_db_setup", "live_server"}


def uses_database(item: pytest.Item) -> bool:
    """Whether the test may touch Django's database: pytest-django refuses it to every other test."""
    asked = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or not DATABASE_FIXTURES.isdisjoint(asked)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A run on PostgreSQL tests what the database decides; the run on SQLite has tested everything else.

    Programs that tests start never get the run's database: they are told of another, or of none.
    """
    if os.environ.get("ANUMATE_TEST_DATABASE") == "postgres":
        config.hook.pytest_deselected(items=[item for item in items if not uses_database(item)])
        items[:] = [item for item in items if uses_database(item)]


@pytest.fixture
def redis_url() -> str:
    """The test run's Valkey; `store` and `async_store` give it to you empty."""
    return f"redis://127.0.0.1:{environment.valkey.port}"


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
async def async_store(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = connect_async(redis_url)
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


def wait_until(condition: Callable[[], Any], *, seconds: float = 10.0, what: str = "the condition") -> Any:
    """What `condition` answers, as soon as it is true; an assertion error naming `what` when it never is."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.01)
    return answer


async def eventually(condition: Callable[[], Any], *, seconds: float = 10.0, what: str = "the condition") -> Any:
    """`wait_until` for a test that runs in an event loop."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        await asyncio.sleep(0.01)
    return answer


class PromptServer(uvicorn.Server):
    """uvicorn's, which looks ten times a second whether it shall end; this one a test need not wait for."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)
