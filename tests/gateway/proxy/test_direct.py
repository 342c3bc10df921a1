"""The common request without a task: what ends too early or too late leaves neither connection in a wrong state."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from gateway.proxy.policies import Timeouts
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route
from tests.gateway.proxy.wires import Connect, at_rest, connect, counted, gateway

__all__ = ["connect", "gateway"]  # fixtures


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


async def test_each_request_gets_its_own_answer_and_is_counted_once(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    chance = random.Random(3)

    async def handler(call: Call) -> None:
        await call.read_body()
        body = call.line.split()[1].encode() + b" " + call.body
        body += bytes(chance.choice([0, 100, 300_000]))
        kind = chance.random()
        if kind < 0.1 and call.line.startswith("GET"):
            call.writer.close()  # under the gateway's hands: sent again on a new connection
        elif kind < 0.4:
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            await asyncio.sleep(0)
            await call.answer(body)
        else:
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    service.handler = handler
    world.publish(a_route(retries=3))
    await gateway.serves(world._revision)
    asked = 0

    async def client(name: int) -> None:
        nonlocal asked
        wire = await connect(gateway)
        for batch in range(8):
            wanted = []
            for number in range(chance.choice([1, 1, 2, 5])):
                path = f"/{name}-{batch}-{number}"
                body = path.encode() * chance.choice([1, 1000])
                post = chance.random() < 0.5
                wanted.append(f"{path} ".encode() + (body if post else b""))
                data = wire.head(
                    *(("POST", f"/orders{path}", f"Content-Length: {len(body)}") if post else ("GET", f"/orders{path}"))
                )
                data += body if post else b""
                cut = chance.choice([0, 0, chance.randrange(len(data))])
                for piece in filter(None, (data[:cut], data[cut:])):
                    wire.writer.write(piece)
                    await asyncio.sleep(chance.choice([0, 0, 0.003]))
                asked += 1
            for want in wanted:
                status, _, got = await wire.answer()
                if status == 200:
                    assert got.rstrip(b"\0") == want
                else:
                    assert status in (502, 503)

    await asyncio.gather(*(client(name) for name in range(10)))
    await eventually(lambda: at_rest(gateway), what="rest")
    totals = await counted(gateway)
    assert sum(totals.values()) == asked + 1
    assert totals[200] > asked * 0.8


@pytest.mark.parametrize(
    ("silent", "status"), [("client", 408), ("instance", 504), ("client, instance answers", 0), ("instance answers", 0)]
)
async def test_who_lets_its_time_pass_is_to_blame(
    connect: Connect, world: World, gateway: Running, service: Service, silent: str, status: int
) -> None:
    world.publish(a_route(timeout_seconds=0.3, timeouts=Timeouts(idle=0.3), retries=0))
    await gateway.serves(world._revision)

    async def handler(call: Call) -> None:
        if silent.endswith("answers"):
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        while await call.reader.read(65536):
            pass
        call.writer.close()

    service.handler = handler
    wire = await connect(gateway)
    sent = 50 if silent.startswith("client") else 100
    wire.ask("POST", "/orders", "Content-Length: 100", body=bytes(sent))
    if status:
        answered, head, _ = await wire.answer()
        assert answered == status
        assert (b"connection: close" in head) == silent.startswith("client")
    else:
        assert (await wire.closed()).endswith(b"half")
    await eventually(lambda: service.open == 0, what="the connection to the instance to be closed")
    await eventually(lambda: at_rest(gateway), what="rest")
    (endpoint,) = gateway.app.balancer.endpoints()
    assert endpoint.failed_in_a_row == (0 if silent.startswith("client") else 1)


async def test_a_client_that_hangs_up_ends_its_exchange(connect: Connect, gateway: Running, service: Service) -> None:
    async def handler(call: Call) -> None:
        if call.line.startswith("GET /answering"):
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        while await call.reader.read(65536):
            pass
        call.writer.close()

    service.handler = handler
    for method, path, length in (("GET", "/orders/answering", 0), ("GET", "/orders", 0), ("POST", "/orders", 100)):
        wire = await connect(gateway)
        service.calls.clear()
        wire.ask(method, path, f"Content-Length: {length}", body=bytes(length // 2))
        await eventually(lambda: service.calls, what="the request")
        wire.writer.transport.abort()
        await eventually(lambda: at_rest(gateway) and service.open == 0, what="rest")
    assert not any(each.pool._idle for each in gateway.app.balancer.endpoints())


async def test_framing_alone_does_not_keep_an_answer_alive(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    world.publish(a_route(timeouts=Timeouts(idle=0.3), retries=0))
    await gateway.serves(world._revision)
    over = asyncio.Event()

    async def handler(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0")
        with contextlib.suppress(ConnectionError):
            while not over.is_set():
                await call.answer(b"0")
                await asyncio.sleep(0.02)

    service.handler = handler
    wire = await connect(gateway)
    wire.ask()
    assert (await asyncio.wait_for(wire.closed(), 5)).endswith(b"2\r\nok\r\n")
    over.set()
    assert at_rest(gateway)


async def test_a_client_that_hangs_up_is_noticed_behind_its_next_request(
    connect: Connect, gateway: Running, service: Service
) -> None:
    async def handler(call: Call) -> None:
        await call.reader.read()

    service.handler = handler
    wire = await connect(gateway)
    wire.ask()
    await eventually(lambda: service.calls, what="the request")
    wire.ask()
    await eventually(lambda: any(each._next for each in gateway.connections), what="the next request")
    wire.writer.close()
    await eventually(lambda: service.open == 0 and at_rest(gateway), seconds=3, what="rest")


@pytest.mark.parametrize("way", ["an upload", "an answer"])
async def test_a_drain_waits_for_what_is_under_way(
    connect: Connect, gateway: Running, service: Service, way: str
) -> None:
    go_on = asyncio.Event()

    async def handler(call: Call) -> None:
        if way == "an answer":
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha")
            await go_on.wait()
            await call.answer(b"lf")
        else:
            await call.read_body()
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalf")

    service.handler = handler
    wire = await connect(gateway)
    size = 4 if way == "an upload" else 0
    wire.ask("PATCH", "/orders", f"Content-Length: {size}", body=bytes(size // 2))
    await eventually(lambda: service.calls, what="the request")
    gateway.drain()
    await eventually(lambda: gateway.app.node.leaving, what="the drain")
    wire.writer.write(bytes(size // 2))
    go_on.set()
    status, head, body = await wire.answer()
    assert (status, body) == (200, b"half")
    assert (b"connection: close" in head) == (way == "an upload")
    assert await wire.closed() == b""
    await gateway.ended()
