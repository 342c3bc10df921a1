"""A worker that is told to stop, on real sockets: what is under way or on its way is answered, then it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from tests.conftest import eventually
from tests.gateway.proxy.conftest import OK, Call, Running, Service, World, a_route

CLOSE = b"connection: close\r\n"


class Connection:
    """One connection of a client that keeps it."""

    def __init__(self, gateway: Running) -> None:
        self._gateway = gateway

    async def open(self) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        return self

    def ask(self, path: str = "/orders", *fields: str) -> None:
        key = f"X-API-Key: {self._gateway.world.key}"
        self.writer.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", key, *fields, "", ""]).encode())

    async def answer(self) -> tuple[bytes, bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = next(line[16:] for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
        return head, await self.reader.readexactly(int(length))

    async def get(self, path: str = "/orders") -> tuple[bytes, bytes]:
        self.ask(path)
        return await self.answer()

    async def closed(self) -> bytes:
        """What comes until the gateway closes."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""


Connect = Callable[[Running], Awaitable[Connection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    made: list[Connection] = []

    async def open_one(gateway: Running) -> Connection:
        made.append(await Connection(gateway).open())
        return made[-1]

    yield open_one
    for each in made:
        each.writer.close()


async def draining(gateway: Running, number: int = signal.SIGTERM) -> None:
    gateway.drain(number)
    await eventually(lambda: gateway.app.node.leaving, what="the drain to begin")


async def test_an_idle_connection_gets_one_last_answer(connect: Connect, gateway: Running) -> None:
    kept = await connect(gateway)
    head, _ = await kept.get()
    assert CLOSE not in head
    await draining(gateway)
    head, body = await kept.get()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert CLOSE in head
    assert body == b"ok"
    assert await kept.closed() == b""
    await gateway.ended()


async def test_what_is_under_way_is_answered_and_says_that_it_was_the_last(
    connect: Connect, gateway: Running, service: Service
) -> None:
    go = asyncio.Event()

    async def waits(call: Call) -> None:
        await go.wait()
        await call.answer(OK)

    service.handler = waits
    busy = await connect(gateway)
    busy.ask()
    await eventually(lambda: service.calls, what="the request to arrive")
    await draining(gateway)
    go.set()
    head, _ = await busy.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert CLOSE in head
    await gateway.ended()


async def test_an_answer_that_had_begun_leaves_room_for_one_more_request(
    connect: Connect, gateway: Running, service: Service
) -> None:
    go = asyncio.Event()

    async def in_two_parts(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await go.wait()
        await call.answer(b"k")

    service.handler = in_two_parts
    busy = await connect(gateway)
    busy.ask()
    head = await busy.reader.readuntil(b"\r\n\r\n")
    await draining(gateway)
    go.set()
    assert CLOSE not in head
    assert await busy.reader.readexactly(2) == b"ok"
    head, _ = await busy.get()
    assert CLOSE in head
    await gateway.ended()


async def test_a_head_that_had_begun_to_come_is_read_to_its_end(connect: Connect, gateway: Running) -> None:
    slow = await connect(gateway)
    slow.writer.write(b"GET /orders HTTP/1.1\r\nHost: a\r\n")
    await eventually(lambda: any(each._unread for each in gateway.connections), what="the first lines to arrive")
    await draining(gateway)
    slow.writer.write(f"X-API-Key: {gateway.world.key}\r\n\r\n".encode())
    head, _ = await slow.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert CLOSE in head
    await gateway.ended()


async def test_readiness_fails_while_it_drains(connect: Connect, gateway: Running) -> None:
    probe = await connect(gateway)
    head, body = await probe.get("/-/readyz")
    assert head.startswith(b"HTTP/1.1 200 ")
    await draining(gateway)
    head, body = await probe.get("/-/readyz")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert msgspec.json.decode(body)["status"] == "draining"
    await gateway.ended()


async def test_new_connections_are_refused(connect: Connect, gateway: Running) -> None:
    silent = await connect(gateway)  # holds the drain up for a moment
    await silent.get()
    await draining(gateway)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await connect(gateway)
    assert await silent.closed() == b""
    await gateway.ended()


async def test_a_stream_ends_at_the_deadline_and_its_upstream_connection_with_it(
    connect: Connect, world: World
) -> None:
    world.publish(a_route())
    service = await world.service()
    gateway = await world.gateway(gateway_drain_seconds=0.2)
    await gateway.knows("orders", 1)

    async def never_ends(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await call.reader.read()

    service.handler = never_ends
    stream = await connect(gateway)
    stream.ask()
    await stream.reader.readuntil(b"data: 1\n\n")
    await draining(gateway)
    assert b"0\r\n\r\n" not in await stream.closed()  # it did not end well, and must not look so
    await gateway.ended()
    await eventually(lambda: service.open == 0, what="the service to be let go of")


async def test_a_second_signal_does_not_hurry_it_but_an_interrupt_does(
    connect: Connect, gateway: Running, service: Service
) -> None:
    async def waits(call: Call) -> None:
        await call.reader.read()

    service.handler = waits
    busy = await connect(gateway)
    busy.ask()
    await eventually(lambda: service.calls, what="the request to arrive")
    await draining(gateway)
    gateway.drain(signal.SIGTERM)
    assert not busy.reader.at_eof()
    gateway.drain(signal.SIGINT)
    assert await busy.closed() == b""
    await gateway.ended()


async def test_who_asked_is_told_that_the_worker_leaves(gateway: Running) -> None:
    told: list[str] = []
    gateway.app.node.on_leave(lambda: told.append("leave"))
    await draining(gateway)
    assert told == ["leave"]
    await gateway.ended()
