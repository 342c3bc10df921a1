"""The common request: clients that read slowly, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from gateway.proxy.server import Server
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service
from tests.gateway.proxy.wires import MEGABYTE, Connect, at_rest, connect, counted, gateway

__all__ = ["connect", "gateway"]  # fixtures


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
    await eventually(lambda: service.open == 0 and at_rest(gateway), what="the instance to be let go of")
    assert await counted(gateway) == {200: 1, 499: 2}


async def test_a_client_that_reads_little_by_little_gets_its_whole_answer(
    connect: Connect, gateway: Running, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "write_seconds", 0.2)
    size = 16 * MEGABYTE
    service.answers(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
    wire = await connect(gateway)
    wire.ask()
    await wire.reader.readuntil(b"\r\n\r\n")
    while size:
        size -= len(await wire.reader.readexactly(min(size, MEGABYTE // 4)))
        await asyncio.sleep(0.02)
    await eventually(lambda: at_rest(gateway), what="rest")
    assert await counted(gateway) == {200: 2}
