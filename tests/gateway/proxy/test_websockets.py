"""WebSockets end to end: a real client and a real service, the gateway between them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from socket import IPPROTO_TCP, SO_KEEPALIVE, SO_SNDBUF, SOL_SOCKET, TCP_KEEPIDLE
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request
from websockets.typing import Subprotocol

from gateway.proxy import tunnel
from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import WATCH_AFTER
from gateway.proxy.frames import Frames
from gateway.proxy.handshake import accept_of
from gateway.proxy.live import Binding
from gateway.proxy.policies import Auth, Limits, Redirect, WebSockets
from gateway.proxy.serving import GatewayServer
from gateway.proxy.table import RateLimit, Route
from gateway.proxy.tunnels import SLICE_SECONDS, Tunnels
from gateway.proxy.upstream import Connection
from registry.live.issuers import IssuerSection
from registry.live.keys import KeyRecord, secret_hash
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Call, Running, World, a_route
from tests.gateway.proxy.test_tokens import issuer, token

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
        self.before_answering = 0.0
        """Seconds that the service takes for a handshake."""
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def take(self, _: ServerConnection, __: Request) -> None:
        self.asked.set()
        await asyncio.sleep(self.before_answering)
        await self.may_answer.wait()

    async def serve(self, socket: ServerConnection) -> None:
        self.served.append(socket)
        await self.talk(socket)

    def connect(self, path: str = "/orders/live", **options: Any) -> connect:
        headers = options.pop("only_headers", None)
        if headers is None:
            headers = {"X-API-Key": self.world.key, **options.pop("headers", {})}
        return connect(f"ws://127.0.0.1:{self.gateway.port}{path}", additional_headers=headers, proxy=None, **options)

    def the_key(self, **fields: Any) -> KeyRecord:
        """The record of the key that is used, changed."""
        known = {"scopes": ("gateway:invoke",), **fields}
        return KeyRecord(self.world.key_id, "a key", "default", secret_hash(PEPPER, self.world.key), **known)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that sends and reads bytes, once it is let in."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        writer.write(ASKING % self.world.key.encode())
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def judged(self) -> None:
        """Wait until those that are open have been judged by what is in force now."""
        era, tunnels = self.gateway.app.tunnels._era(), self.gateway.app.tunnels
        await eventually(
            lambda: all(a is b for a, b in zip(era, tunnels._judged_under, strict=True)), what="the judging"
        )

    @property
    def tunnel(self) -> tunnel.Tunnel:
        """The only one there is."""
        (connection,) = self.gateway.connections
        found: tunnel.Tunnel = connection._tunnel
        return found

    async def route(self, **fields: Any) -> None:
        parts = {name: fields.pop(name) for name in ("rate_limits_table",) if name in fields}
        self.world.publish(a_route(**fields), rate_limits=parts.get("rate_limits_table", ()))
        await self.gateway.serves(self.world._revision)


@pytest.fixture
async def sockets(world: World) -> AsyncIterator[Sockets]:
    world.publish(a_route())
    gateway = await world.gateway()
    found = Sockets(gateway, world)
    server: Server = await serve(
        found.serve, "127.0.0.1", 0, select_subprotocol=newest, max_size=None, process_request=found.take
    )
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


async def test_a_handshake_that_a_drain_overtakes_ends_in_1001_for_both(sockets: Sockets) -> None:
    sockets.may_answer.clear()
    opening = asyncio.ensure_future(sockets.connect().__aenter__())
    await sockets.asked.wait()
    sockets.gateway.drain()
    await eventually(lambda: sockets.gateway.app.node.leaving, what="the drain to begin")
    sockets.may_answer.set()
    client = await opening
    assert client.response is not None
    assert client.response.headers.get_all("Connection") == ["Upgrade"]
    assert await ended(client) == 1001
    assert await ended(sockets.served[0]) == 1001
    async with asyncio.timeout(5):
        await sockets.gateway.ended()


async def test_a_handshake_that_comes_during_a_drain_ends_in_1001_for_both(sockets: Sockets) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sockets.gateway.port)
    writer.write(b"GET /-/livez HTTP/1.1\r\nHost: h\r\n\r\n")
    await reader.readuntil(b'alive"}')
    sockets.gateway.drain()
    await eventually(lambda: sockets.gateway.app.node.leaving, what="the drain to begin")
    writer.write(ASKING % sockets.world.key.encode())
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await reader.readexactly(4))[2:] == b"\x03\xe9"
        writer.write(b"\x88\x80aaaa")
        await sockets.gateway.ended()
    assert await ended(sockets.served[0]) == 1001
    writer.close()


async def test_a_side_that_does_not_answer_a_goodbye_is_cut_off(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.1)
    reader, writer = await sockets.raw()
    await asyncio.wait_for(sockets.gateway.stop(), 5.0)
    assert b"\x03\xe9" in await reader.read()
    sockets.world.gateways.clear()
    writer.close()


async def alive(client: ClientConnection) -> None:
    await client.send("still")
    assert await client.recv() == "still"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (None, "This API key is not known, or was revoked."),
        ({"expires_at": 1.0}, "This API key has expired. Ask for a new one."),
        ({"routes": ("other",)}, "The key is not for route orders."),
        ({"networks": ("10.0.0.0/8",)}, "The key may not be used from this address."),
        ({"scopes": ()}, "The key needs scope gateway:invoke here."),
    ],
)
async def test_who_would_not_be_let_in_with_its_key_any_more_is_let_go_with_1008(
    sockets: Sockets, changes: dict[str, Any] | None, why: str
) -> None:
    async with sockets.connect() as client:
        await alive(client)
        sockets.world.publish_keys(*(() if changes is None else (sockets.the_key(**changes),)))
        assert await ended(client) == 1008
        assert client.close_reason == why
    assert await ended(sockets.served[0]) == 1008
    assert sockets.served[0].close_reason == why
    await eventually(lambda: not sockets.gateway.app.connections.open, what="the connection to end")


async def test_every_worker_lets_go(sockets: Sockets) -> None:
    other = Sockets(await sockets.world.gateway(), sockets.world)
    await other.gateway.knows("orders", 1)
    async with sockets.connect() as client, other.connect() as of_the_other:
        await alive(client)
        await alive(of_the_other)
        sockets.world.publish_keys()
        assert await ended(client) == await ended(of_the_other) == 1008


async def test_a_key_of_a_tenant_that_is_not_active_any_more_keeps_no_websocket_open(sockets: Sockets) -> None:
    async with sockets.connect() as client:
        await alive(client)
        sockets.world.publish_keys(sockets.the_key(), tenants=())
        assert await ended(client) == 1008


async def test_a_websocket_ends_when_its_key_does(sockets: Sockets) -> None:
    ends = time.time() + 1.0
    sockets.world.publish_keys(sockets.the_key(expires_at=ends))
    keys = sockets.gateway.app.node.keys
    await eventually(lambda: keys.verify(sockets.world.key, 0.0).expires_at == ends, what="the keys to come")
    async with sockets.connect() as client:
        await alive(client)
        assert await ended(client) == 1008
    assert time.time() >= ends


@pytest.mark.parametrize(
    "routes",
    [
        (),
        (a_route("all", id=7, path="/"),),
        (a_route(), a_route("live", path="/orders/live")),
        (a_route(scopes=("gateway:write",)),),
        (a_route(auth=Auth(methods=("jwt",))),),
        (a_route(websockets=WebSockets(enabled=False)),),
        (a_route(targets=(), redirect=Redirect(status=308, path="/elsewhere")),),
    ],
    ids=["deleted", "another takes it", "a nearer one takes it", "scopes", "methods", "no websockets", "redirect"],
)
async def test_what_its_route_would_not_take_any_more_is_let_go_with_1008(
    sockets: Sockets, routes: tuple[Route, ...]
) -> None:
    async with sockets.connect() as client:
        await alive(client)
        sockets.world.publish(*routes)
        assert await ended(client) == 1008
    assert await ended(sockets.served[0]) == 1008


async def test_an_open_route_lets_go_too_when_it_is_deleted(sockets: Sockets) -> None:
    await sockets.route(auth_required=False)
    async with sockets.connect(only_headers={}) as client:
        await alive(client)
        await sockets.route(auth_required=False, timeout_seconds=7.0)
        await sockets.judged()
        await alive(client)
        sockets.world.publish()
        assert await ended(client) == 1008


async def test_edits_that_are_not_about_it_leave_a_websocket_open(sockets: Sockets) -> None:
    await sockets.route(auth=Auth(query_parameter="key"))
    path = f"/orders/live?key={sockets.world.key}&page=2"
    async with sockets.connect() as client, sockets.connect(path, only_headers={}) as by_query:
        sockets.world.publish_keys(sockets.the_key(), KeyRecord("other", "another", "default", "hash"))
        await sockets.route(auth=Auth(query_parameter="key"), timeout_seconds=7.0)
        await sockets.judged()
        await alive(client)
        await alive(by_query)
        sockets.world.publish_keys()
        assert await ended(client) == await ended(by_query) == 1008


async def test_a_websocket_ends_when_its_token_does_leeway_included(sockets: Sockets) -> None:
    sockets.world._publish("issuers", msgspec.json.encode(IssuerSection((issuer("HS256", leeway=1),))))
    await sockets.route(auth=Auth(methods=("jwt",)))
    known = sockets.gateway.app.tokens
    await eventually(lambda: known._issuers, what="the issuer to be known")
    ends = time.time() + 0.5
    bearer = {"Authorization": f"Bearer {token('HS256', exp=ends)}"}
    async with sockets.connect(only_headers=bearer) as client:
        await alive(client)
        assert await ended(client) == 1008
        assert client.close_reason == "The token has expired."
    assert await ended(sockets.served[0]) == 1008
    assert time.time() >= ends + 1


async def test_a_websocket_ends_when_its_tokens_issuer_is_not_believed_any_more_but_not_while_its_keys_are_away(
    sockets: Sockets,
) -> None:
    def publish(**fields: Any) -> None:
        record = issuer("ES256", leeway=1, **fields)
        sockets.world._publish("issuers", msgspec.json.encode(IssuerSection((record,) if fields else ())))

    publish(name="login")
    await sockets.route(auth=Auth(methods=("jwt",)))
    known = sockets.gateway.app.tokens
    await eventually(lambda: known._issuers, what="the issuer to be known")
    ends = time.time() + 1.5
    lasting = {"Authorization": f"Bearer {token('ES256')}"}
    passing = {"Authorization": f"Bearer {token('ES256', exp=ends)}"}
    async with sockets.connect(only_headers=lasting) as client, sockets.connect(only_headers=passing) as shorter:
        era = known.era
        publish(jwks_url="http://127.0.0.1:9/away")
        await eventually(lambda: known.era is not era, what="the keys to be away")
        await sockets.judged()
        await alive(client)
        await alive(shorter)
        assert await ended(shorter) == 1008  # which is known without the keys
        assert time.time() >= ends + 1
        await alive(client)
        publish()
        assert await ended(client) == 1008


async def test_what_changed_while_the_service_was_asked_counts_too(world: World) -> None:
    service = await world.service()
    world.publish(a_route())
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def grant(call: Call) -> None:
        asked.set()
        await may_answer.wait()
        fields = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: " + accept_of(KEY)
        await call.answer(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n" % fields)
        call.body = await call.reader.read()

    service.handler = grant
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(ASKING % world.key.encode())
    await asked.wait()
    era = gateway.app.node.keys.era
    world.publish_keys()
    await eventually(lambda: gateway.app.node.keys.era is not era, what="the keys to come")
    await eventually(lambda: gateway.app.tunnels._judged_under[1] is gateway.app.node.keys.era, what="the judging")
    may_answer.set()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    frame = await reader.readexactly(4)
    assert frame[:1] == b"\x88"
    assert frame[2:] == b"\x03\xf0"
    writer.write(b"\x88\x80aaaa")
    assert b"revoked" in await reader.read()
    writer.close()


async def test_one_that_cannot_be_judged_is_closed_and_keeps_no_other_from_being_judged(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnels = sockets.gateway.app.tunnels
    admit = tunnels._admit

    def stumble(x: Exchange) -> Binding:
        if b"page=2" in x.query:
            raise RuntimeError("a mistake")
        return admit(x)

    async with sockets.connect("/orders/live?page=2") as first, sockets.connect() as second:
        monkeypatch.setattr(tunnels, "_admit", stumble)
        await sockets.route(timeout_seconds=7.0)
        assert await ended(first) == 1011
        await sockets.judged()
        await alive(second)


async def test_many_are_judged_in_parts_and_only_when_something_has_changed(sockets: Sockets) -> None:
    app, era, judged, turns, now = sockets.gateway.app, [object()], 0, 0, 0.0

    def admit(x: Exchange) -> Binding:
        nonlocal judged, now
        judged += 1
        now += SLICE_SECONDS * 0.3  # four of them make a slice
        return app.admit(app.live.current, x)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    tunnels = Tunnels(admit, lambda: tuple(era), time.time, lambda: now)
    fields = [line.split(b": ") for line in (ASKING % sockets.world.key.encode()).splitlines()[1:-1]]
    headers = [(name.lower(), value) for name, value in fields]
    known = {"type": "http", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1)}
    scope = {**known, "method": "GET", "path": "/orders", "query_string": b"", "headers": headers}
    with contextlib.ExitStack() as opened:
        for _ in range(1000):
            x = Exchange.of_scope(scope, 0.0)
            x.read()
            binding = app.admit(app.live.current, x)
            opened.enter_context(tunnels.watch(tunnel.Tunnel(WebSockets(), lambda _: None), x, binding))
        judged = 0
        await tunnels._look()
        assert judged == 0
        era[0] = object()
        beside = asyncio.create_task(others())
        await tunnels._look()
        beside.cancel()
        assert judged == 1000
        assert turns >= 1000 // 4 - 1


async def test_a_message_that_is_under_way_is_whole_before_the_goodbye(sockets: Sockets) -> None:
    heard: list[Any] = []

    async def listen(socket: ServerConnection) -> None:
        heard.append(await socket.recv())

    sockets.talk = listen
    reader, writer = await sockets.raw()
    writer.write(b"\x81\x84\x00\x00\x00\x00ha")
    await eventually(lambda: not sockets.tunnel.client.frames.between, what="half a frame to come")
    sockets.world.publish_keys()
    assert (await reader.readexactly(4))[2:] == b"\x03\xf0"
    writer.write(b"lf")
    assert await ended(sockets.served[0]) == 1008
    assert heard == ["half"]
    writer.close()


async def test_who_has_no_key_any_more_and_does_not_answer_the_goodbye_is_cut_off(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.1)
    reader, writer = await sockets.raw()
    writer.write(b"\x81\xfe\x40\x00\x00\x00\x00\x00and no more")
    await eventually(lambda: not sockets.tunnel.client.frames.between, what="a frame to begin")
    sockets.world.publish_keys()
    assert b"\x03\xf0" in await reader.read()
    assert await ended(sockets.served[0]) == 1006
    writer.close()


async def test_a_peer_that_vanished_in_the_middle_does_not_hold_its_websocket_for_ever(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GOODBYE_SECONDS", 0.1)

    async def flood(socket: ServerConnection) -> None:
        while True:
            await socket.send(bytes(60_000))

    sockets.talk = flood
    await sockets.route(websockets=WebSockets(idle=0.5))
    _, writer = await sockets.raw()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    (endpoint,) = sockets.gateway.app.balancer.endpoints()
    await eventually(lambda: endpoint.in_flight == 0, what="the tunnel to end")
    assert await ended(sockets.served[0]) == 1000
    assert not sockets.gateway.app.connections.open
    writer.transport.abort()


@pytest.fixture
def deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, for a side that takes nothing."""
    monkeypatch.setattr(tunnel.Tunnel, "write_seconds", 0.1)


async def let_go(sockets: Sockets) -> None:
    (endpoint,) = sockets.gateway.app.balancer.endpoints()
    await eventually(lambda: endpoint.in_flight == 0, what="the tunnel to end")
    assert not sockets.gateway.app.connections.open


async def flood(socket: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.send(bytes(60_000))


def deafen(transport: asyncio.BaseTransport) -> None:
    transport.pause_reading()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("goes", [False, True], ids=["who sends stays", "who sends goes unheard"])
async def test_a_client_that_takes_nothing_is_cut_off_without_an_idle_timeout_too(sockets: Sockets, goes: bool) -> None:
    sockets.talk = flood
    await sockets.route(websockets=WebSockets(idle=0))
    _, writer = await sockets.raw()
    deafen(writer.transport)
    if goes:
        held_up = sockets.tunnel.client
        await eventually(lambda: held_up._write_timer is not None, what="the client to be behind")
        sockets.served[0].transport.abort()
    await let_go(sockets)
    if not goes:
        assert await ended(sockets.served[0]) == 1011
        assert sockets.served[0].close_reason == "The other side took nothing for 0.1 s."
    writer.transport.abort()


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("goes", [False, True], ids=["who sends stays", "who sends goes unheard"])
async def test_a_service_that_takes_nothing_is_cut_off_without_an_idle_timeout_too(
    sockets: Sockets, goes: bool
) -> None:
    async def listen(socket: ServerConnection) -> None:
        deafen(socket.transport)
        await socket.wait_closed()

    sockets.talk = listen
    await sockets.route(websockets=WebSockets(idle=0))
    reader, writer = await sockets.raw()
    held_up = sockets.tunnel.service

    def behind() -> bool:
        writer.write(16 * (b"\x82\xfe\x40\x00\x00\x00\x00\x00" + bytes(0x4000)))
        return held_up._write_timer is not None or held_up.gone

    await eventually(behind, what="the service to be behind")
    if goes:
        writer.transport.abort()
    await let_go(sockets)
    if not goes:
        with contextlib.suppress(ConnectionResetError):  # what it sent after that was not read
            assert b"\x03\xf3The other side took nothing for 0.1 s." in await reader.read()
    sockets.served[0].transport.abort()
    writer.close()


@pytest.mark.usefixtures("deadline")
async def test_what_a_service_sent_before_it_went_does_not_wait_for_ever_for_a_client_that_takes_nothing(
    sockets: Sockets,
) -> None:
    opened, may_go = asyncio.Event(), asyncio.Event()
    before = -1

    async def speak(socket: ServerConnection) -> None:
        await opened.wait()
        while not (may_go.is_set() or socket.transport.is_closing()):
            if waiting() < 0x8000:  # so little that the service may go on
                await socket.send(bytes(0x4000))
            await asyncio.sleep(0.001)
        socket.transport.abort()

    def waiting() -> int:
        return end.transport.get_write_buffer_size()

    def stuck() -> bool:
        nonlocal before
        before, now = waiting(), before
        return now == before >= 0x8000

    sockets.talk = speak
    await sockets.route(websockets=WebSockets(idle=0))
    _, writer = await sockets.raw()
    deafen(writer.transport)
    end = sockets.tunnel.client
    end.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
    opened.set()
    await eventually(stuck, what="the client to be behind")
    assert end._write_timer is None
    may_go.set()
    await let_go(sockets)
    writer.transport.abort()


class Taking(asyncio.Transport):
    """The way to a side that takes what a test says."""

    waiting = 300_000
    reading = True
    aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.waiting += len(data)

    def close(self) -> None:
        self.aborted = True

    abort = close


async def test_who_takes_something_in_time_is_not_cut_off() -> None:
    here = tunnel.Tunnel(WebSockets(idle=0), lambda _: None)
    client, service = Taking(), Taking()
    here.client.transport, here.service.transport = client, service
    here.client.pause_writing()
    assert not service.reading
    for _ in range(3):
        client.waiting -= 1
        here.client._check_reader()
        assert not client.aborted
    here.client.resume_writing()
    assert service.reading
    assert here.client._write_timer is None
    here.client.pause_writing()
    here.client._check_reader()
    assert client.aborted
    here.client.connection_lost(None)
    here.service.connection_lost(None)
    assert here.ended.done()


async def test_the_system_asks_whether_a_silent_peer_is_still_there(sockets: Sockets) -> None:
    async with sockets.connect():
        for end in (sockets.tunnel.client, sockets.tunnel.service):
            found = end.transport.get_extra_info("socket")
            assert found.getsockopt(SOL_SOCKET, SO_KEEPALIVE)
            assert found.getsockopt(IPPROTO_TCP, TCP_KEEPIDLE) == 60


async def test_what_a_client_sent_before_it_went_arrives_after_a_slow_handshake_too(sockets: Sockets) -> None:
    size, got = 0, 0
    reading = asyncio.Event()

    async def listen(socket: ServerConnection) -> None:
        nonlocal got
        socket.transport.pause_reading()
        await reading.wait()
        socket.transport.resume_reading()
        async for message in socket:
            got += len(message)

    sockets.talk = listen
    sockets.before_answering = WATCH_AFTER * 2
    _, writer = await sockets.raw()
    service = sockets.tunnel.service.transport
    service.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
    frame = b"\x82\xfe\x40\x00\x00\x00\x00\x00" + bytes(0x4000)

    def held_up() -> bool:
        nonlocal size
        if service.get_write_buffer_size():
            return True
        writer.write(frame)
        size += 0x4000
        return False

    await eventually(held_up, what="the service to be behind")
    writer.close()
    await eventually(service.is_closing, what="the gateway to miss the client")
    reading.set()
    assert await ended(sockets.served[0]) == 1006
    assert got == size


async def test_a_websocket_that_has_ended_or_was_refused_leaves_nothing_to_pythons_collector(sockets: Sockets) -> None:
    kinds = (tunnel.Tunnel, tunnel.End, Frames, GatewayServer, Connection, Exchange)

    def left() -> list[object]:
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    gc.collect()  # what tests before this one have left
    before = len(left())
    gc.disable()
    try:
        async with sockets.connect() as client:
            await alive(client)
            assert len(left()) > before
            await sockets.gateway.raw(ASKING % b"anm_wrong")
        await eventually(lambda: len(left()) == before, what="all that was made for it to be free")
    finally:
        gc.enable()


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
