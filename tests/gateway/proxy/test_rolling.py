"""New workers for old under load, with real processes: every request is answered."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from anumate.stack import programs
from anumate.stack.console import Console
from anumate.stack.preflight import free_port
from anumate.stack.process import Child, StartError
from anumate.stack.rolling import Rolling
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, World, a_route

WORKERS = 2
APP = "anumate_integration_service.app:gateway"
CODE = "from anumate_integration_service.app import gateway\n"
BROKEN = "raise RuntimeError('half a deployment')\n"
CLIENTS = 4


class Platform:
    """A gateway of several workers under gunicorn, with clients that keep their connections."""

    def __init__(self, world: World, home: Path) -> None:
        self.port = free_port()
        environ = os.environ | {
            "REDIS_URL": world.redis_url,
            "API_KEY_PEPPER": PEPPER,
            "ANUMATE_HOME": str(home),
            "DEFAULT_RATE_LIMIT": "0",
            "PYTHONUNBUFFERED": "1",
        }
        environ["PYTHONPATH"] = str(home)
        home.mkdir(exist_ok=True)
        self.code = home / "served.py"
        self.code.write_text(CODE)
        program = programs.gateway(environ, "127.0.0.1", self.port, WORKERS, "info")
        argv = tuple("served:gateway" if each == APP else each for each in program.argv)
        assert argv != program.argv
        program = replace(program, argv=argv)
        self.child = Child(program, Console(io.StringIO()), home / "logs")
        self.rolling = Rolling(self.child, 30.0)
        self.drained = 0
        self.child.listeners.append(self._count)
        self.answers: list[int] = []
        self._key = world.key
        self._enough = asyncio.Event()

    def _count(self, line: str) -> None:
        self.drained += line.endswith("has drained")

    async def start(self) -> None:
        await self.child.start()
        await eventually(lambda: len(self.rolling.serving) == WORKERS, seconds=30, what="the workers to serve")
        self.clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        await eventually(lambda: len(self.answers) > 10 * CLIENTS, what="the first answers")

    async def _client(self) -> None:
        """One request after the other, on one connection for as long as it is offered; nothing is tried twice."""
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(headers={"X-API-Key": self._key}, limits=limits, timeout=20.0) as client:
            while not self._enough.is_set():
                answer = await client.get(f"http://127.0.0.1:{self.port}/orders")
                self.answers.append(answer.status_code)
                await asyncio.sleep(0.002)

    async def enough(self) -> None:
        """The clients' last answers; raises what went wrong with one."""
        served = len(self.answers)
        await eventually(lambda: len(self.answers) > served + 10 * CLIENTS, what="answers of the new workers")
        self._enough.set()
        await asyncio.gather(*self.clients)

    async def stop(self) -> None:
        for client in self.clients:
            client.cancel()
        await asyncio.gather(*self.clients, return_exceptions=True)
        await self.child.stop(10.0)


@pytest.fixture
async def platform(world: World, tmp_path: Path) -> AsyncIterator[Platform]:
    world.publish(a_route())
    await world.service()
    platform = Platform(world, tmp_path)
    platform.clients = []
    await platform.start()
    yield platform
    await platform.stop()


async def test_one_worker_after_the_other_is_replaced_and_no_request_is_lost(platform: Platform) -> None:
    old = list(platform.rolling.serving)
    await platform.rolling.replace()
    await platform.enough()
    assert set(platform.answers) == {200}
    assert len(platform.rolling.serving) == WORKERS
    assert not set(old) & set(platform.rolling.serving)


async def test_gunicorns_own_reload_loses_none_either(platform: Platform) -> None:
    old = set(platform.rolling.serving)
    platform.child.signal(signal.SIGHUP)
    await eventually(lambda: platform.drained == WORKERS, seconds=30, what="the old workers to drain")
    await eventually(lambda: len(set(platform.rolling.serving) - old) == WORKERS, seconds=30, what="new workers")
    await platform.enough()
    assert set(platform.answers) == {200}


async def test_code_that_cannot_be_imported_leaves_the_old_workers_serving(platform: Platform) -> None:
    old = list(platform.rolling.serving)
    platform.code.write_text(BROKEN)
    for _ in range(2):  # an operator tries again
        with pytest.raises(StartError, match=r"worker \d+ cannot start, the others serve on: .*half a deployment"):
            await platform.rolling.replace()
    assert platform.rolling.serving == old
    platform.code.write_text(CODE)
    await platform.rolling.replace()
    await platform.enough()
    assert set(platform.answers) == {200}
    assert len(platform.rolling.serving) == WORKERS
    assert not set(old) & set(platform.rolling.serving)


async def test_a_first_worker_that_cannot_be_imported_ends_the_start(platform: Platform, world: World) -> None:
    other = Platform(world, platform.code.parent / "other")
    other.code.write_text(BROKEN)
    ended = asyncio.Event()
    other.child.listeners.append(lambda line: ended.set() if "Worker failed to boot" in line else None)
    other.clients = []
    await other.child.start()
    try:
        await asyncio.wait_for(ended.wait(), 30)
    finally:
        await other.stop()
