"""The common request with a body: what is left of it is never read as the next request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from gateway.proxy.policies import Limits
from gateway.proxy.table import RateLimit
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route
from tests.gateway.proxy.wires import Connect, at_rest, connect, gateway

__all__ = ["connect", "gateway"]  # fixtures


async def test_what_follows_an_upload_is_the_next_request(connect: Connect, gateway: Running, service: Service) -> None:
    body = bytes(range(256)) * 4
    for pieces in (1, 3, 40):
        wire = await connect(gateway)
        service.calls.clear()
        stream = wire.head("POST", "/orders/a", "Content-Length: 1024") + body
        stream += wire.head("PUT", "/orders/b", "Content-Length: 3") + b"abc"
        stream += wire.head("GET", "/orders/c") + wire.head("DELETE", "/orders/d")
        start = stream.index(body) + 5
        cuts = [0, start, *(start + (len(stream) - start) * number // pieces for number in range(1, pieces + 1))]
        for at, end in itertools.pairwise(cuts):
            wire.writer.write(stream[at:end])
            await asyncio.sleep(0.002)
        assert [(await wire.answer())[0] for _ in range(4)] == [200] * 4
        assert [call.line.split()[:2] for call in service.calls] == [
            *(["POST", "/a"], ["PUT", "/b"], ["GET", "/c"], ["DELETE", "/d"])
        ]
        assert [call.body for call in service.calls] == [body, b"abc", b"", b""]
    assert at_rest(gateway)


@pytest.mark.parametrize("ending", ["answers and closes", "answers", "resets", "closes", "sends nonsense"])
async def test_the_rest_of_an_upload_is_never_read_as_a_request(
    connect: Connect, gateway: Running, service: Service, ending: str
) -> None:
    async def handler(call: Call) -> None:
        if call.line.startswith("GET"):
            await call.answer()
            return
        await call.reader.readexactly(10)
        if ending == "sends nonsense":
            await call.answer(b"nonsense\r\n\r\n")
        elif ending.startswith("answers"):
            await call.answer()
        if ending == "resets":
            call.writer.transport.abort()
        elif ending.endswith("closes"):
            call.writer.close()
        else:
            while await call.reader.read(65536):
                pass
            call.writer.close()

    service.handler = handler
    wire = await connect(gateway)
    hidden = wire.head("GET", "/orders/hidden") * 20
    wire.ask("PUT", "/orders", f"Content-Length: {200_000 + len(hidden)}", body=bytes(100_000))
    status, head, _ = await wire.answer()
    assert status == (200 if ending.startswith("answers") else 502)
    with contextlib.suppress(ConnectionError):
        for piece in (bytes(50_000), bytes(50_000), hidden, wire.head("GET", "/orders/next")):
            wire.writer.write(piece)
            await asyncio.sleep(0.002)
    if status == 200:
        assert b"connection: close" in head
        assert await wire.closed() == b""
    else:
        assert (await wire.answer())[0] == 200
        assert service.calls[-1].line.startswith("GET /next")
    assert not any("hidden" in call.line for call in service.calls)
    assert at_rest(gateway)


@pytest.mark.parametrize("status", [401, 404, 413, 429])
async def test_the_rest_of_a_refused_upload_is_never_read_as_a_request(
    connect: Connect, world: World, gateway: Running, service: Service, status: int
) -> None:
    limits = Limits(body_bytes=10_000 if status == 413 else 0)
    policies = (RateLimit("default", "one", 0.001, 1, "route"),) if status == 429 else ()
    route = a_route("narrow", "orders", limits=limits, rate_limits=tuple(policy.name for policy in policies))
    world.publish(a_route(), route, rate_limits=policies)
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    if status == 429:
        wire.ask(path="/narrow")
        await wire.answer()
        service.calls.clear()
    hidden = wire.head("GET", "/orders/hidden") * 20
    head = wire.head("POST", "/nowhere" if status == 404 else "/narrow", f"Content-Length: {40_000 + len(hidden)}")
    wire.writer.write(head.replace(b"X-API-Key: anm", b"X-API-Key: amn") if status == 401 else head)
    wire.writer.write(bytes(10))
    answered, head, _ = await wire.answer()
    assert answered == status
    with contextlib.suppress(ConnectionError):
        for piece in (bytes(39_990), hidden, wire.head("GET", "/orders/next")):
            wire.writer.write(piece)
            await asyncio.sleep(0.002)
    if b"connection: close" in head:
        assert await wire.closed() == b""
    else:
        assert (await wire.answer())[0] == 200
    assert not any("hidden" in call.line for call in service.calls)
    assert at_rest(gateway)


async def test_an_instance_that_has_not_taken_the_whole_request_is_not_used_again(
    connect: Connect, gateway: Running, service: Service
) -> None:
    answer = asyncio.Event()

    async def handler(call: Call) -> None:
        await answer.wait()
        await call.answer()

    service.handler = handler
    wire = await connect(gateway)
    wire.ask()
    await eventually(lambda: service.calls, what="the request")
    (relay,) = gateway.app.direct.relays
    relay.slow()  # as its connection says it when too much waits to be written
    answer.set()
    assert (await wire.answer())[0] == 200
    assert not any(each.pool._idle for each in gateway.app.balancer.endpoints())
    wire.ask()
    assert (await wire.answer())[0] == 200
