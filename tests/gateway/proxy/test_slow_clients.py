"""Clients that take their time hold a socket each, for so long as is declared, and nothing else."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy.table import Upstream
from tests.conftest import eventually
from tests.gateway.proxy.conftest import OK, Call, Running, Service, World, a_route

EACH = 50
FILES = 4096
HEAD = "POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: 1000\r\n\r\n"


class Crowd:
    """Connections of clients that say `data` and then nothing."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.quiet: list[asyncio.StreamWriter] = []  # of those that have said all they have to
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

    async def read_slowly(self, port: int, data: bytes, count: int) -> list[asyncio.StreamReader]:
        """Clients with little room for an answer."""
        readers = []
        for _ in range(count):
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
            writer.write(data)
            readers.append(reader)
            self.quiet.append(writer)
        return readers

    async def sip(self, readers: list[asyncio.StreamReader], done: asyncio.Event) -> None:
        """A few bytes of each answer, again and again."""
        while not done.is_set():
            for reader in readers:
                await reader.read(16)
            await asyncio.sleep(0.02)

    def leave(self) -> None:
        for writer in (*self.writers, *self.quiet):
            writer.close()


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    here = Crowd()
    yield here
    here.leave()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"this machine lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_slow_clients_take_nothing_from_the_others(
    world: World, service: Service, crowd: Crowd
) -> None:
    each, slow_readers = 240, 40
    world.publish(a_route(), a_route("endless", strip_prefix=False))

    async def answer(call: Call) -> None:
        if not call.line.startswith("GET /endless"):
            await call.read_body()
            await call.answer()
            return
        await call.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not call.writer.is_closing():
            await call.answer(b"4000\r\n" + bytes(0x4000) + b"\r\n")

    service.handler = answer
    gateway = await world.gateway(gateway_max_concurrent=each + slow_readers + 10)
    await gateway.knows("orders", 1)
    await gateway.serves(world._revision)
    await crowd.come(gateway.port, b"", each)
    await crowd.come(gateway.port, b"GET /orders HT", each)
    await crowd.come(gateway.port, b"GET /orders HTTP/1.1\r\nHost: h\r\nX-Slow: ", each)
    await crowd.come(gateway.port, HEAD.format(key=world.key).encode(), each)
    await eventually(lambda: len(gateway.connections) == 4 * each, what="all clients to be connected")
    await eventually(lambda: gateway.app.admission.whole.inside == each, what="the requests without a body")
    # Their slowness did not reach the service: a request whose body does not come holds no instance.
    assert service.connections == 0
    ask = f"GET /endless HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n".encode()
    readers = await crowd.read_slowly(gateway.port, ask, slow_readers)
    await eventually(lambda: len(service.calls) == slow_readers, what="the endless answers to begin")
    assert len(gateway.connections) == 4 * each + slow_readers == 1000

    done = asyncio.Event()
    reading = asyncio.create_task(crowd.sip(readers, done))
    trickling = asyncio.create_task(crowd.trickle(done))
    answers = await asyncio.gather(*(gateway.get() for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    for _ in range(20):
        assert (await gateway.get()).status_code == 200
    assert gateway.app.admission.whole.inside == each + slow_readers
    done.set()
    await asyncio.gather(trickling, reading)


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


@pytest.mark.parametrize("half_open_seconds", [None, 0.5])
@pytest.mark.parametrize("framing", ["Content-Length: 1000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nf0000\r\n"])
async def test_a_slow_upload_keeps_no_service_from_recovering(
    world: World, crowd: Crowd, framing: str, half_open_seconds: float | None
) -> None:
    policy = BreakerPolicy(
        consecutive_failures=2, open_seconds=1.0, half_open_calls=1, half_open_seconds=half_open_seconds
    )
    world.publish(a_route(retries=0), upstreams=(Upstream("default", "orders", breaker=policy),))
    service = await world.service()
    service.answers(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n")
    gateways = [await world.gateway() for _ in range(2)]
    for each in gateways:
        await each.knows("orders", 1)
        assert [(await each.get()).status_code for _ in range(3)] == [500, 500, 503]
    service.answers(OK)

    def breakers() -> list[tuple[str, int]]:
        return [(found.state, found.trials_out) for each in gateways for found in each.app.guard.report(0.0).breakers]

    await eventually(lambda: ("half_open", 0) in breakers(), what="a worker's turn to try")
    trying = gateways[breakers().index(("half_open", 0))]
    head = f"POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{framing}x"
    await crowd.come(trying.port, head.encode(), 1)
    await eventually(lambda: ("half_open", 1) in breakers(), what="the upload to be the trial")
    assert len(trying.app.direct.relays) == framing.startswith("Content-Length")
    generation = trying.app.guard.report(0.0).breakers[0].generation
    done = asyncio.Event()
    dribbling = asyncio.create_task(crowd.trickle(done))
    async with asyncio.timeout(10):
        while (await trying.get()).status_code == 503:
            assert trying.app.guard.report(0.0).breakers[0].generation == generation  # it was not opened by the upload
    await eventually(lambda: breakers() == [("closed", 0)] * 2, what="both to close")
    assert [(await each.get()).status_code for each in gateways] == [200, 200]
    assert not any(reader.at_eof() for reader in crowd.readers)
    done.set()
    await dribbling
