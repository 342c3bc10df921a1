"""The common request without a task: what can go wrong between two connections leaves neither in a wrong state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.proxy.recorder import Recorder
from gateway.proxy.server import Server
from gateway.proxy.table import RateLimit
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route

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
async def connect() -> AsyncIterator[Connect]:
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


def counted(recorder: Recorder) -> dict[int, int]:
    found: dict[int, int] = {}
    for cell, tally in recorder.tallies.items():
        found[cell[3]] = found.get(cell[3], 0) + tally.count
    return found


async def test_a_client_that_reads_nothing_is_not_answered_further(
    connect: Connect, gateway: Running, service: Service
) -> None:
    async def large(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (8 * MEGABYTE) + bytes(8 * MEGABYTE))

    wire = await connect(gateway)
    (server,) = [each for each in gateway.connections if each.client == wire.writer.get_extra_info("sockname")]
    small = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 60_000 + bytes(60_000)
    service.answers(small)
    asked = 0
    while not server.flow.write_paused:
        before = len(service.calls)
        wire.ask()
        asked += 1
        assert asked < 1000
        await eventually(lambda: len(service.calls) > before and not gateway.app.direct.relays, what="answer")  # noqa: B023
    service.handler = large
    for _ in range(4):
        wire.ask()
        await asyncio.sleep(0.2)
    assert server.transport.get_write_buffer_size() < 2 * MEGABYTE
    for _ in range(asked):
        assert (await wire.answer())[0] == 200
    for _ in range(4):
        status, _, body = await wire.answer()
        assert (status, len(body)) == (200, 8 * MEGABYTE)
    await eventually(lambda: at_rest(gateway), what="rest")


async def test_a_request_that_waited_for_its_turn_is_answered_in_a_drain(
    connect: Connect, gateway: Running, service: Service
) -> None:
    half, rest = asyncio.Event(), asyncio.Event()

    async def slow(call: Call) -> None:
        if "/first" in call.line:
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha")
            half.set()
            await rest.wait()
            await call.answer(b"lf")
        else:
            await call.answer()

    service.handler = slow
    wire = await connect(gateway)
    wire.ask(path="/orders/first")
    await asyncio.wait_for(half.wait(), 5)
    wire.ask(path="/orders/second")
    await eventually(lambda: any(each._next for each in gateway.connections), what="the second request")
    gateway.drain()
    await eventually(lambda: gateway.app.node.leaving, what="the drain")
    rest.set()
    assert (await wire.answer())[2] == b"half"
    status, head, body = await wire.answer()
    assert (status, body) == (200, b"ok")
    assert b"connection: close" in head


async def test_the_first_of_two_pipelined_requests_ends_when_the_client_hangs_up(
    connect: Connect, gateway: Running, service: Service
) -> None:
    async def never(call: Call) -> None:
        await call.reader.read()

    service.handler = never
    wire = await connect(gateway)
    wire.writer.write(wire.head() + wire.head())
    await eventually(lambda: service.calls, what="request")
    wire.writer.close()
    await eventually(lambda: service.open == 0, seconds=3, what="the instance's connection to end")
    await eventually(lambda: at_rest(gateway), what="rest")


async def test_a_client_that_stops_reading_is_cut_off(
    connect: Connect, gateway: Running, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "write_seconds", 0.2)

    async def large(call: Call) -> None:
        size = 32 * MEGABYTE
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))

    service.handler = large
    wires = [await connect(gateway) for _ in range(2)]
    wires[0].ask()
    wires[1].writer.write(wires[1].head()[:20])
    await asyncio.sleep(0.05)
    wires[1].writer.write(wires[1].head()[20:])
    await eventually(lambda: len(service.calls) == 2, what="the requests")
    await eventually(lambda: counted(gateway.app.recorder).get(499) == 2, what="both to be counted as gone")
    await eventually(lambda: service.open == 0 and at_rest(gateway), what="the instance to be let go of")


async def test_a_request_known_by_its_bytes_says_its_length_where_it_waits_for_a_token(
    connect: Connect, gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(rate_limits=("few",)), rate_limits=(RateLimit("default", "few", 1000, 1000, "key"),))
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    for _ in range(4):
        wire.ask("POST", "/orders", "Content-Length: 0")
        assert (await wire.answer())[0] == 200
        for bucket in gateway.app.limiter._buckets.values():
            bucket.ends = 0.0  # its lease is over
    assert [call.all("content-length") for call in service.calls] == [["0"]] * 4
