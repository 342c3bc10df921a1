"""Bodies flow both ways at the pace of who reads them; who hangs up is not worked for any longer."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy import forwarder
from gateway.proxy.policies import Limits, Timeouts
from gateway.proxy.table import Upstream
from tests.conftest import eventually
from tests.gateway.proxy.conftest import OK, Call, Running, Service, World, a_route

MEGABYTE = 1024 * 1024
LARGE = 48 * MEGABYTE
BOUND = 8 * MEGABYTE
"""Far more than the buffers on the way, far less than the body."""


def head_of(world: World, method: str = "GET", more: str = "") -> bytes:
    return f"{method} /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{more}\r\n".encode()


async def read(reader: asyncio.StreamReader, count: int) -> None:
    while count > 0:
        count -= len(await reader.read(min(count, 65536)))


async def standing_still(count: Callable[[], int]) -> int:
    """The count once it has not moved for a while."""
    before = -1
    while (now := count()) != before:
        before = now
        await asyncio.sleep(0.3)
    return now


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < BOUND
    finally:
        tracemalloc.stop()


async def test_a_large_answer_passes_through_little_memory(gateway: Running, world: World, service: Service) -> None:
    async def large(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        for _ in range(LARGE // MEGABYTE):
            await call.answer(bytes(MEGABYTE))

    service.handler = large
    received = 0
    with bounded_memory():
        async with gateway.client.stream("GET", "/orders") as answer:
            async for piece in answer.aiter_raw():
                received += len(piece)
    assert received == LARGE


async def test_a_service_waits_for_a_client_that_does_not_read(
    gateway: Running, world: World, service: Service
) -> None:
    written = 0

    async def endless(call: Call) -> None:
        nonlocal written
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1024 * LARGE))
        while True:
            await call.answer(bytes(MEGABYTE))
            written += MEGABYTE

    service.handler = endless
    with bounded_memory():
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head_of(world))
        await reader.readexactly(1000)
        before = await standing_still(lambda: written)
        assert written < 1024 * LARGE
        await read(reader, before // 2 + MEGABYTE)
        await eventually(lambda: written > before, what="the service to go on once the client reads")
        writer.close()
        await eventually(lambda: service.open == 0, what="the service's connection to end")


async def test_a_large_upload_passes_through_little_memory(gateway: Running, world: World, service: Service) -> None:
    received = 0

    async def count(call: Call) -> None:
        nonlocal received
        while received < LARGE:
            received += len(await call.reader.read(65536))
        await call.answer()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGE // MEGABYTE):
            yield bytes(MEGABYTE)

    service.handler = count
    with bounded_memory():
        answer = await gateway.client.post("/orders", content=body(), headers={"Content-Length": str(LARGE)})
    assert (answer.status_code, received) == (200, LARGE)


async def test_a_client_waits_for_a_service_that_does_not_read(
    gateway: Running, world: World, service: Service
) -> None:
    reads = asyncio.Event()

    async def late(call: Call) -> None:
        await reads.wait()
        await read(call.reader, LARGE)
        await call.answer()

    service.handler = late
    sent = 0
    with bounded_memory():
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head_of(world, "POST", f"Content-Length: {LARGE}\r\n"))

        async def send() -> None:
            nonlocal sent
            while sent < LARGE:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536

        sending = asyncio.create_task(send())
        await standing_still(lambda: sent)
        assert sent < LARGE
        reads.set()
        await sending
        await eventually(lambda: len(gateway.app.recorder.tallies) or gateway.world.redis.hlen("anumate:{g}:counters"))
        writer.close()


async def test_a_body_is_forwarded_as_it_comes_and_the_answer_too(
    gateway: Running, world: World, service: Service
) -> None:
    async def echo(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await call.reader.readline(), 16):
            piece = (await call.reader.readexactly(size + 2))[:-2]
            await call.answer(b"%x\r\n%b\r\n" % (size, piece))
        await call.answer(b"0\r\n\r\n")

    service.handler = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world, "POST", "Transfer-Encoding: chunked\r\n"))
    for piece in (b"one", b"two", b"three"):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await reader.readuntil(piece)  # it is back before the next one leaves
    writer.write(b"0\r\n\r\n")
    await reader.readuntil(b"0\r\n\r\n")
    writer.close()


@pytest.fixture
def impatient(world: World) -> None:
    world.publish(a_route(timeout_seconds=0.2, timeouts=Timeouts(idle=0.3)))


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
async def test_an_answer_that_stops_in_the_middle_is_cut_and_its_instance_blamed(
    impatient: None, world: World, framing: bytes
) -> None:
    async def stop(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n4\r\nsome\r\n" % framing)
        await call.reader.read()

    service = await world.service()
    service.handler = stop
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world))
    answer = await reader.read()
    assert b"some" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    await eventually(lambda: service.open == 0, what="the service's connection to be closed")
    await eventually(lambda: gateway.app.guard.report(0.0).breakers[0].failures == 1)
    writer.close()


async def test_a_client_that_reads_slowly_does_not_make_its_instance_a_silent_one(
    impatient: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def large(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
        for _ in range(LARGE // MEGABYTE):
            await call.answer(bytes(MEGABYTE))

    checks = 0
    check = forwarder.Delivery._check_idle

    def counted(delivery: forwarder.Delivery) -> None:
        nonlocal checks
        checks += 1
        check(delivery)

    monkeypatch.setattr(forwarder.Delivery, "_check_idle", counted)
    service = await world.service()
    service.handler = large
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world))
    await reader.readuntil(b"\r\n\r\n")
    await eventually(lambda: checks > 3, what="the idle limit to pass a few times")
    await read(reader, LARGE)
    assert gateway.app.guard.report(0.0).breakers[0].failures == 0
    writer.close()


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "within the body"])
async def test_a_client_that_hangs_up_ends_the_work_for_it(
    gateway: Running, world: World, service: Service, when: str
) -> None:
    async def wait(call: Call) -> None:
        if when == "within the answer":
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
        while await call.reader.read(65536):
            pass

    service.handler = wait
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    more = "Content-Length: 100\r\n" if when == "within the body" else ""
    writer.write(head_of(world, "POST" if more else "GET", more) + (b"some" if more else b""))
    await eventually(lambda: service.calls, what="the request to arrive")
    if when == "within the answer":
        await reader.readuntil(b"some")
    writer.transport.abort()
    await eventually(lambda: service.open == 0, what="the service's connection to be closed")
    await eventually(lambda: gateway.app.recorder.tallies or world.redis.hlen("anumate:{g}:counters"))
    assert gateway.app.guard.report(0.0).breakers[0].failures == 0
    (endpoint,) = gateway.app.balancer.endpoints()
    await eventually(lambda: endpoint.in_flight == 0)
    service.answers(OK)
    assert (await gateway.get()).text == "ok"


async def test_an_answer_may_come_before_the_body_was_sent(gateway: Running, world: World, service: Service) -> None:
    async def refuse(call: Call) -> None:
        await call.answer(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        call.writer.close()

    service.handler = refuse
    answer = await gateway.raw(head_of(world, "POST", "Content-Length: 1000000\r\n") + b"only some")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize("sent", [b"", b"some"])
async def test_a_client_that_stalls_in_its_upload_is_told_so_and_nobody_else_is_blamed(
    world: World, sent: bytes
) -> None:
    world.publish(a_route(timeout_seconds=0.3))
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answer = await gateway.raw(head_of(world, "POST", "Content-Length: 100\r\n") + sent)
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"connection: close" in answer
    assert b'"code":"request_timeout"' in answer
    await nobody_is_blamed(gateway, service)
    await gateway.app.recorder.flush()
    assert any(b"|408" in name for name in world.redis.hkeys("anumate:{g}:counters"))


async def test_an_instance_that_gives_up_on_a_stalled_client_is_not_blamed(
    gateway: Running, world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def give_up(call: Call) -> None:
        await call.reader.readexactly(4)
        call.writer.close()

    monkeypatch.setattr(forwarder, "STALL_SECONDS", 0.0)
    service.handler = give_up
    answer = await gateway.raw(head_of(world, "POST", "Content-Length: 100\r\n") + b"some")
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    await nobody_is_blamed(gateway, service)


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("rate", [0, 240])
async def test_a_client_that_dribbles_its_upload_is_told_so_where_the_route_minds(
    world: World, monkeypatch: pytest.MonkeyPatch, framing: str, rate: int
) -> None:
    monkeypatch.setattr(forwarder, "GRACE_SECONDS", 0.0)
    world.publish(a_route(timeout_seconds=0.2, limits=Limits(body_rate=rate)))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    await gateway.get()  # so that a connection is at hand
    piece = b"x" if framing.startswith("Content") else b"1\r\nx\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world, "POST", f"{framing}\r\n") + piece)
    answer = b""
    for _ in range(12):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                answer += await reader.read(4096)
            break
        writer.write(piece)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ") if rate else not answer
    (endpoint,) = gateway.app.balancer.endpoints()
    await eventually(lambda: endpoint.in_flight == 0, what="the instance to be let go")
    (breaker,) = gateway.app.guard.report(0.0).breakers
    assert (breaker.calls, breaker.failures) == (1, 0)  # the first request alone


async def nobody_is_blamed(gateway: Running, service: Service) -> None:
    await eventually(lambda: service.open == 0, what="the service's connection to be closed")
    assert not [each for each in gateway.app.guard.report(0.0).breakers if each.calls or each.failures]
    (endpoint,) = gateway.app.balancer.endpoints()
    await eventually(lambda: endpoint.in_flight == 0)


async def test_a_slow_upload_is_not_a_slow_service(world: World) -> None:
    breaker = BreakerPolicy(slow_call_seconds=0.4)
    world.publish(a_route(timeout_seconds=0.4), upstreams=(Upstream("default", "orders", breaker=breaker),))
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world, "POST", "Content-Length: 8\r\n"))
    for _ in range(8):
        writer.write(b"x")
        await asyncio.sleep(0.1)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert service.calls[0].body == b"x" * 8
    (report,) = gateway.app.guard.report(0.0).breakers
    assert (report.calls, report.slow_calls) == (1, 0)
    writer.close()


async def test_a_client_is_asked_for_its_body_only_once_the_request_is_admitted(
    gateway: Running, world: World, service: Service
) -> None:
    expects = "Content-Length: 2\r\nExpect: 100-continue\r\n"
    refused = await gateway.raw(head_of(world, "POST", expects).replace(world.key.encode(), b"wrong"))
    assert refused.startswith(b"HTTP/1.1 401 ")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head_of(world, "POST", expects))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert service.calls[0].body == b"hi"
    writer.close()
