"""What tests of every part share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio as aioredis

from anumate.lib.redis import connect, connect_async
from tests import environment


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
