"""WebSockets end to end: a real client and a real service, the gateway between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from gateway.proxy import tunnel
from gateway.proxy.handshake import accept_of
from gateway.proxy.policies import Limits, WebSockets
from gateway.proxy.table import RateLimit
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, World, a_route

Talk = Callable[[ServerConnection], Awaitable[None]]
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKING = (
    b"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def newest(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return max(offered, default=None)


class Sockets:
    """The gateway, and a service that speaks WebSockets behind it."""

    def __init__(self, gateway: Running, world: World) -> None:
        self.gateway = gateway
        self.world = world
        self.talk: Talk = echo
        self.served: list[ServerConnection] = []

    async def serve(self, socket: ServerConnection) -> None:
        self.served.append(socket)
        await self.talk(socket)

    def connect(self, **options: Any) -> connect:
        headers = {"X-API-Key": self.world.key, **options.pop("headers", {})}
        return connect(
            f"ws://127.0.0.1:{self.gateway.port}/orders/live", additional_headers=headers, proxy=None, **options
        )

    async def route(self, **fields: Any) -> None:
        parts = {name: fields.pop(name) for name in ("rate_limits_table",) if name in fields}
        self.world.publish(a_route(**fields), rate_limits=parts.get("rate_limits_table", ()))
        await self.gateway.serves(self.world._revision)


@pytest.fixture
async def sockets(world: World) -> AsyncIterator[Sockets]:
    world.publish(a_route())
    gateway = await world.gateway()
    found = Sockets(gateway, world)
    server: Server = await serve(found.serve, "127.0.0.1", 0, select_subprotocol=newest, max_size=None)
    world.register("orders", "a", server.sockets[0].getsockname()[1])
    await gateway.knows("orders", 1)
    yield found
    server.close()
    await server.wait_closed()


async def ended(socket: ClientConnection | ServerConnection) -> int | None:
    """The status with which the connection ended."""
    await socket.wait_closed()
    return socket.close_code


async def test_messages_pass_both_ways_and_the_handshake_is_the_routes(sockets: Sockets) -> None:
    offered = [Subprotocol("chat.v1"), Subprotocol("chat.v2")]
    async with sockets.connect(subprotocols=offered, headers={"X-Request-ID": "r-7"}) as client:
        for message in ("hello", b"\x00\xff", "x" * 100_000):
            await client.send(message)
            assert await client.recv() == message
        assert client.subprotocol == "chat.v2"
        assert client.response is not None
        assert client.response.headers["X-Request-ID"] == "r-7"
        assert client.response.headers["Via"] == "1.1 anumate"
        request = sockets.served[0].request
        assert request is not None
        assert request.path == "/live"
        assert request.headers["X-Consumer-ID"] == sockets.world.key_id
        assert "X-API-Key" not in request.headers


async def test_fragments_and_pings_pass_as_they_are(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        waiter = await client.ping(b"are you there")
        await waiter
        waiter = await sockets.served[0].ping(b"and you")
        await waiter


async def test_the_status_and_reason_of_a_close_arrive_at_the_other_side(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await client.send("x")
        await client.recv()
        await client.close(4001, "enough")
    (served,) = sockets.served
    await served.wait_closed()
    assert (served.close_code, served.close_reason) == (4001, "enough")

    async def refuse(socket: ServerConnection) -> None:
        await socket.close(4002, "not today")

    sockets.talk = refuse
    async with sockets.connect() as client:
        assert await ended(client) == 4002
        assert client.close_reason == "not today"


async def test_when_both_are_gone_nothing_is_left(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await client.send("x")
        await client.recv()
        (endpoint,) = sockets.gateway.app.balancer.endpoints()
        assert endpoint.in_flight == 1
        assert len(sockets.gateway.app.connections.open) == 1
    await eventually(lambda: endpoint.in_flight == 0, what="the request to end")
    assert sockets.gateway.app.admission.whole.inside == 0
    assert not sockets.gateway.app.connections.open
    assert ("default", "orders", "orders", 101) in sockets.gateway.app.recorder.tallies


async def test_who_may_not_come_in_is_told_before_anything_is_upgraded(sockets: Sockets) -> None:
    async def status(**options: Any) -> int:
        with pytest.raises(InvalidStatus) as refusal:
            await sockets.connect(**options)
        return refusal.value.response.status_code

    assert await status(headers={"X-API-Key": "anm_wrong"}) == 401
    await sockets.route(websockets=WebSockets(enabled=False))
    assert await status() == 400
    limit = RateLimit("default", "one", 0.001, 1, "key")
    await sockets.route(rate_limits=("one",), rate_limits_table=(limit,))
    async with sockets.connect():
        assert await status() == 429
    await sockets.route(limits=Limits(concurrent=1))
    async with sockets.connect():
        assert await status() == 503
    await sockets.route(path="/elsewhere")
    assert await status() == 404


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"Version: 13", b"Version: 8", b"version"),
        (b"Key: " + KEY, b"Key: c2hvcnQ=", b"16 bytes"),
        (b"Key: " + KEY, b"Key: !!!", b"16 bytes"),
        (b"Connection: Upgrade", b"Connection: close", b"Connection: Upgrade"),
        (b"GET ", b"POST ", b"begins with GET"),
    ],
)
async def test_a_handshake_that_is_none_is_refused_in_words(
    sockets: Sockets, old: bytes, new: bytes, why: bytes
) -> None:
    answer = await sockets.gateway.raw(ASKING.replace(old, new) % sockets.world.key.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert why in answer
    assert not sockets.served


async def test_a_message_over_the_limit_ends_the_connection_with_1009(sockets: Sockets) -> None:
    await sockets.route(websockets=WebSockets(message_bytes=1000))
    async with sockets.connect(compression=None) as client:
        await client.send("x" * 1000)
        assert len(await client.recv()) == 1000
        await client.send(["x" * 600, "x" * 600])
        assert await ended(client) == 1009
    await sockets.served[0].wait_closed()


async def test_a_service_is_held_to_the_limit_too(sockets: Sockets) -> None:
    async def chatter(socket: ServerConnection) -> None:
        await socket.send("x" * 2000)

    sockets.talk = chatter
    await sockets.route(websockets=WebSockets(message_bytes=1000))
    async with sockets.connect(compression=None) as client:
        assert await ended(client) == 1009


@pytest.mark.parametrize("frame", [b"\x81\x02hi", b"\x83\x80aaaa", b"\x89\xfe\x00\x80aaaa"])
async def test_frames_that_break_the_protocol_end_it_with_1002_and_never_arrive(sockets: Sockets, frame: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sockets.gateway.port)
    writer.write(ASKING % sockets.world.key.encode() + frame)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"\x03\xea" in answer.partition(b"\r\n\r\n")[2]
    await eventually(lambda: bool(sockets.served), what="the service to be reached")
    assert await ended(sockets.served[0]) == 1002
    writer.close()


async def test_frames_sent_before_the_answer_are_not_lost(sockets: Sockets) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sockets.gateway.port)
    writer.write(ASKING % sockets.world.key.encode() + b"\x81\x82\x00\x00\x00\x00hi")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(4) == b"\x81\x02hi"
    writer.close()


async def test_who_keeps_silent_for_too_long_is_told_and_let_go(sockets: Sockets) -> None:
    await sockets.route(websockets=WebSockets(idle=0.2))
    async with sockets.connect(ping_interval=None) as client:
        assert await ended(client) == 1000
    assert await ended(sockets.served[0]) == 1000


async def test_a_client_hears_1011_when_its_service_dies(sockets: Sockets) -> None:
    async def die(socket: ServerConnection) -> None:
        await socket.recv()
        socket.transport.abort()

    sockets.talk = die
    async with sockets.connect() as client:
        await client.send("x")
        assert await ended(client) == 1011


async def test_a_service_notices_when_its_client_dies(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await client.send("x")
        await client.recv()
        client.transport.abort()
        assert await ended(sockets.served[0]) == 1006


async def test_a_side_that_does_not_read_stops_the_other_one_and_fills_no_memory(sockets: Sockets) -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        while True:
            await socket.send(bytes(60_000))
            sent += 60_000

    sockets.talk = flood
    async with sockets.connect(compression=None, max_queue=1, ping_interval=None) as client:
        client.transport.pause_reading()
        (endpoint,) = sockets.gateway.app.balancer.endpoints()
        before = -1

        def stuck() -> bool:
            nonlocal before
            before, now = sent, before
            return sent > 0 and now == sent

        await eventually(stuck, what="the service to be held up")
        assert sent < 30_000_000
        client.transport.resume_reading()
        await client.recv()
        client.transport.abort()
    await eventually(lambda: endpoint.in_flight == 0, what="the tunnel to end")


async def test_a_gateway_that_goes_says_1001_to_both(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await client.send("x")
        await client.recv()
        stopping = asyncio.create_task(sockets.gateway.stop())
        assert await ended(client) == 1001
        assert await ended(sockets.served[0]) == 1001
        await stopping
    sockets.world.gateways.clear()


async def test_a_side_that_does_not_answer_a_goodbye_is_cut_off(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", sockets.gateway.port)
    writer.write(ASKING % sockets.world.key.encode())
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(sockets.gateway.stop(), 5.0)
    assert b"\x03\xe9" in await reader.read()
    sockets.world.gateways.clear()
    writer.close()


@pytest.mark.parametrize(
    "fields",
    [
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: AAAA",
        b"upgrade: websocket\r\nconnection: upgrade",
        b"upgrade: h2c\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept_of(KEY),
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-protocol: other\r\nsec-websocket-accept: "
        + accept_of(KEY),
    ],
)
async def test_an_instance_that_grants_what_was_not_asked_for_is_malformed(world: World, fields: bytes) -> None:
    service = await world.service()
    world.publish(a_route())
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    service.answers(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n" % fields)
    answer = await gateway.raw(ASKING % world.key.encode())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"upstream_malformed" in answer


async def test_an_answer_that_grants_nothing_is_passed_on(world: World) -> None:
    service = await world.service()
    world.publish(a_route())
    gateway = await world.gateway()
    await gateway.knows("orders", 1)

    async def refuse(call: Call) -> None:
        assert (call.one("upgrade"), call.one("connection")) == ("websocket", "Upgrade")
        await call.answer(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope")

    service.handler = refuse
    answer = await gateway.raw(ASKING % world.key.encode())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"nope")
