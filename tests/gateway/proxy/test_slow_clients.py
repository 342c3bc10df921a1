"""Clients that take their time hold a socket each, for so long as is declared, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.conftest import eventually
from tests.gateway.proxy.conftest import Running, Service, World, a_route

EACH = 50
HEAD = "POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: 1000\r\n\r\n"


class Crowd:
    """Connections of clients that say `data` and then nothing."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []

    async def come(self, port: int, data: bytes, count: int = EACH) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            self.readers.append(reader)
            self.writers.append(writer)

    async def trickle(self, done: asyncio.Event) -> None:
        """A byte each, again and again."""
        while not done.is_set():
            for writer in self.writers:
                if not writer.is_closing():
                    writer.write(b"x")
            await asyncio.sleep(0.02)

    def leave(self) -> None:
        for writer in self.writers:
            writer.close()


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    here = Crowd()
    yield here
    here.leave()


async def test_two_hundred_slow_clients_take_nothing_from_the_others(
    world: World, service: Service, crowd: Crowd
) -> None:
    gateway = await world.gateway(gateway_max_concurrent=EACH + 10)
    await gateway.knows("orders", 1)
    await crowd.come(gateway.port, b"")
    await crowd.come(gateway.port, b"GET /orders HT")
    await crowd.come(gateway.port, b"GET /orders HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    await crowd.come(gateway.port, HEAD.format(key=world.key).encode())
    await eventually(lambda: len(gateway.connections) == 4 * EACH, what="all clients to be connected")
    await eventually(lambda: gateway.app.admission.whole.inside == EACH, what="the requests without a body")

    # Nobody's slowness reached the service: a request whose body does not come holds no instance.
    assert service.connections == 0
    done = asyncio.Event()
    trickling = asyncio.create_task(crowd.trickle(done))
    answers = await asyncio.gather(*(gateway.get() for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    for _ in range(50):
        assert (await gateway.get()).status_code == 200
    done.set()
    await trickling


async def test_slow_clients_are_gone_when_their_time_is_over(world: World, crowd: Crowd) -> None:
    world.publish(a_route(timeout_seconds=0.3))
    await world.service()
    gateway = await world.gateway(gateway_head_seconds=0.3)
    await gateway.knows("orders", 1)
    await crowd.come(gateway.port, b"GET /orders HT")
    await crowd.come(gateway.port, b"GET /orders HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    await crowd.come(gateway.port, HEAD.format(key=world.key).encode())
    answers = await asyncio.gather(*(reader.read() for reader in crowd.readers))
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * 3 * EACH
    await eventually(lambda: not gateway.connections, what="all connections to be closed")
    assert gateway.app.admission.whole.inside == 0


async def test_who_trickles_a_head_is_refused_as_if_silent(world: World, service: Service, crowd: Crowd) -> None:
    """The deadline is for the whole head: a byte now and then does not move it."""
    gateway = await world.gateway(gateway_head_seconds=0.3)
    await crowd.come(gateway.port, b"GET /orders HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    began, done = time.monotonic(), asyncio.Event()
    trickling = asyncio.create_task(crowd.trickle(done))
    answers = await asyncio.gather(*(reader.read() for reader in crowd.readers), return_exceptions=True)
    done.set()
    await trickling
    assert time.monotonic() - began < 5
    assert {answer[:12] if isinstance(answer, bytes) else b"HTTP/1.1 408" for answer in answers} == {b"HTTP/1.1 408"}
    assert not service.calls


async def test_an_answer_that_nobody_reads_is_held_back_within_bounds(
    world: World, service: Service, gateway: Running, crowd: Crowd
) -> None:
    size = 8 * 1024 * 1024
    service.answers(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
    ask = f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n".encode()
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(ask)
        crowd.readers.append(reader)
        crowd.writers.append(writer)
    await eventually(lambda: len(service.calls) == 5, what="all to be asked for")
    transports = [connection.transport for connection in gateway.connections]
    await eventually(lambda: all(each.get_write_buffer_size() > 0 for each in transports), what="all to be held back")
    assert max(each.get_write_buffer_size() for each in transports) < 1024 * 1024
    service.answers(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    assert (await gateway.get()).text == "ok"
    crowd.leave()
    await eventually(lambda: gateway.app.admission.whole.inside == 0, what="all requests to be over")
