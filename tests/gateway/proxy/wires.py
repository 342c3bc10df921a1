"""A client's connection to a gateway that has one to its instance at hand, for tests of the common request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.proxy.reports import COUNTERS
from tests.gateway.proxy.conftest import Running, Service, World

MEGABYTE = 1024 * 1024


class Wire:
    """A client's connection on which each request is written in one piece, or in those that a test wants."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway
        self._key = gateway.world.key

    async def open(self) -> Wire:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        return self

    def head(self, method: str = "GET", path: str = "/orders", *fields: str) -> bytes:
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", "Host: h", f"X-API-Key: {self._key}", *fields, "", ""]
        ).encode()

    def ask(self, method: str = "GET", path: str = "/orders", *fields: str, body: bytes = b"") -> None:
        self.writer.write(self.head(method, path, *fields) + body)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lengths = [line[16:] for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
            body = await self.reader.readexactly(int(lengths[0])) if lengths else b""
        return int(head[9:12]), head, body

    async def closed(self) -> bytes:
        """What comes until the gateway closes."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""


Connect = Callable[[Running], Awaitable[Wire]]


@pytest.fixture
async def connect(gateway: Running) -> AsyncIterator[Connect]:
    """Its connections are closed before the gateway ends, which else would wait for them."""
    made: list[Wire] = []

    async def open_one(gateway: Running) -> Wire:
        made.append(await Wire(gateway).open())
        return made[-1]

    yield open_one
    for each in made:
        each.writer.close()


@pytest.fixture
async def gateway(world: World, service: Service) -> Running:
    """One that has a connection to the instance at hand."""
    running = await world.gateway(gateway_drain_seconds=3.0)
    await running.knows("orders", 1)
    assert (await running.get()).status_code == 200
    service.calls.clear()
    return running


def at_rest(gateway: Running) -> bool:
    """Whether nothing is left behind."""
    app = gateway.app
    endpoints = list(app.balancer.endpoints())
    return not (app.direct.relays or app.admission.whole.inside or any(each.in_flight for each in endpoints))


async def counted(gateway: Running) -> dict[int, int]:
    """Requests by their status."""
    await gateway.app.recorder.flush()
    found: dict[int, int] = {}
    for name, count in gateway.world.redis.hgetall(COUNTERS).items():  # type: ignore[union-attr]
        if name.count(b"|") == 3:
            status = int(name.rpartition(b"|")[2])
            found[status] = found.get(status, 0) + int(count)
    return found
