"""The common request without a task: what can go wrong between two connections leaves neither in a wrong state."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.proxy.direct import Steps
from gateway.proxy.policies import Auth, Cors, HeaderEdits, Limits, Pair, Redirect, Rewrite, Timeouts, WebSockets
from gateway.proxy.relay import Client
from gateway.proxy.reports import COUNTERS
from gateway.proxy.server import Server
from gateway.proxy.table import RateLimit
from registry.live import keys as api_keys
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Call, Running, Service, World, a_route

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
async def connect(gateway: Running) -> AsyncIterator[Connect]:
    """Its connections are closed before the gateway ends, which else would wait for them."""
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


async def counted(gateway: Running) -> dict[int, int]:
    """Requests by their status."""
    await gateway.app.recorder.flush()
    found: dict[int, int] = {}
    for name, count in gateway.world.redis.hgetall(COUNTERS).items():  # type: ignore[union-attr]
        if name.count(b"|") == 3:
            status = int(name.rpartition(b"|")[2])
            found[status] = found.get(status, 0) + int(count)
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


async def test_a_request_known_by_its_bytes_says_its_length_where_it_waits_for_a_token(
    connect: Connect, gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(rate_limits=("few",)), rate_limits=(RateLimit("default", "few", 1000, 1000, "key"),))
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    while not gateway.app.direct._memory._known:
        assert len(service.calls) < 50
        wire.ask("POST", "/orders", "Content-Length: 0")
        assert (await wire.answer())[0] == 200
    for bucket in gateway.app.limiter._buckets.values():
        bucket.ends = 0.0  # its lease is over
    wire.ask("POST", "/orders", "Content-Length: 0")
    assert (await wire.answer())[0] == 200
    assert {call.one("content-length") for call in service.calls} == {"0"}


# Bodies


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


# Time


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


async def test_a_connection_of_common_requests_may_become_a_websocket(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    world.publish(a_route(websockets=WebSockets(enabled=True)))
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    for _ in range(3):
        wire.ask()
        assert (await wire.answer())[0] == 200

    async def handler(call: Call) -> None:
        accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        head = f"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        await call.answer(head.encode() + b"\x81\x02hi")
        await call.reader.read()

    service.handler = handler
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    wire.ask("GET", "/orders", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
    assert (await wire.answer())[0] == 101
    assert await asyncio.wait_for(wire.reader.readexactly(4), 5) == b"\x81\x02hi"
    wire.writer.transport.abort()
    await eventually(lambda: at_rest(gateway), what="rest")


# What is remembered


async def test_a_revoked_key_is_refused_on_a_connection_that_it_was_good_on(
    connect: Connect, world: World, gateway: Running
) -> None:
    wire = await connect(gateway)
    for _ in range(4):
        wire.ask()
        assert (await wire.answer())[0] == 200
    world.publish_keys()
    async with asyncio.timeout(1):
        status = 200
        while status == 200:
            wire.ask()
            status = (await wire.answer())[0]
    assert status == 401


async def test_two_keys_stay_two_callers(connect: Connect, world: World, gateway: Running, service: Service) -> None:
    id, key = api_keys.make()
    digests = [api_keys.secret_hash(PEPPER, each) for each in (world.key, key)]
    scopes = ("gateway:invoke",)
    world.publish_keys(
        api_keys.KeyRecord(world.key_id, "first", "default", digests[0], scopes),
        api_keys.KeyRecord(id, "second", "default", digests[1], scopes),
    )
    await eventually(lambda: len(gateway.app.node.keys._records or ()) == 2, what="the keys")
    wire = await connect(gateway)
    keys = {world.key: world.key_id, key: id}
    asked = [*keys] * 5
    for each in asked:
        wire._key = each
        wire.ask()
        await wire.answer()
    assert [call.one("x-consumer-id") for call in service.calls] == [keys[each] for each in asked]
    assert len({call.one("x-request-id") for call in service.calls}) == len(asked)


async def test_a_request_known_by_its_bytes_goes_where_the_table_says_now(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    other = await world.service("others")
    wire = await connect(gateway)
    for _ in range(3):
        wire.ask()
        await wire.answer()
    world.publish(a_route(service="others", request_headers=HeaderEdits(set=(Pair("X-New", "1"),))))
    await gateway.serves(world._revision)
    await gateway.knows("others", 1)
    wire.ask()
    await wire.answer()
    assert (len(service.calls), len(other.calls)) == (3, 1)
    assert other.calls[0].one("x-new") == "1"


# Both ways

FIELDS = (
    *("Connection: keep-alive", "Connection: close", "Keep-Alive: timeout=5", "TE: trailers", "Accept: a", "Accept: b"),
    *("X-Request-ID: my-own", "X-Request-ID: not fit", "x_request_id: disguised", "Via: 1.1 other", "Via: 1.1 anumate"),
    *("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "traceparent: 00-bad", "tracestate: a=b"),
    *("Origin: https://app.example.com", "Origin: https://other.example.com", "X-Forwarded-For: 1.2.3.4", "X-Gone: 1"),
    *(
        "X-Set: theirs",
        "X-Consumer-ID: somebody",
        "X_Consumer-Id: somebody",
        "Forwarded: for=1.2.3.4",
        "Max-Forwards: 0",
    ),
    *("Content-Length: 0", "Authorization: Basic abc", "Authorization: Bearer other", "Host: second", "Upgrade: h2c"),
    *(
        "Expect: 100-continue",
        "X-Empty:",
        "X-Bytes: \xe4\xff",
        "X-Tab: a\tb",
        "Proxy-Connection: keep-alive",
        "X-Who: me",
    ),
)
PATHS = (
    *(
        "/orders",
        "/orders/",
        "/orders/a%2Fb",
        "/orders//a",
        "/orders/../x",
        "/orders/%41",
        "/orders/a;b=c",
        "/orders?",
        "//",
    ),
    *(
        "/orders?a=b&c",
        "/orders/ä",
        "/nowhere",
        "/",
        "/-/livez",
        "/-/no",
        "/plain/x?a=1",
        "/edited/x?y",
        "/open?api_key=x",
    ),
    *(
        "/open",
        "/byquery?api_key={key}",
        "/byquery?a=1&api_key={key}&b=2",
        "/byquery?api_key=wrong",
        "/limited/x",
        "/moved/x",
    ),
    *(
        "/small",
        "/gone",
        "/cors",
        "/scoped",
        "/orders?a b",
        "/orders#x",
        "/orders/" + "x" * 9000,
        "/edited",
        "//orders/x",
    ),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
NEW_EACH_TIME = re.compile(
    rb"(?im)^(x-request-id|date|ratelimit): [^\r]*|^(traceparent: 00-)[0-9a-f-]*|^(x-forwarded-port): [0-9]*|"
    rb"(\"request_id\": ?\")[^\"]*"
)


def without_ids(data: bytes, *own: bytes) -> bytes:
    """Less what differs between any two requests."""
    return NEW_EACH_TIME.sub(
        lambda m: m[0] if any(each in m[0] for each in own) else b"*%b" % (m[1] or m[2] or m[3] or m[4]), data
    )


def some_request(chance: random.Random, key: str) -> tuple[bytes, bytes]:
    fields = chance.sample(FIELDS, chance.choice([0, 0, 1, 2, 4]))
    if chance.random() < 0.8:
        fields.append(chance.choice([f"X-API-Key: {key}", f"Authorization: Bearer {key}"]))
    body = chance.randbytes(chance.choice([0, 1, 20, 3000])) if chance.random() < 0.4 else b""
    if body:
        fields.append(f"Content-Length: {len(body)}")
    chance.shuffle(fields)
    path = chance.choice(PATHS).replace("{key}", key)
    lines = [f"{chance.choice(METHODS)} {path} HTTP/1.1", "Host: shop.example:81", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1"), body


async def said_to(gateway: Running, *pieces: bytes) -> bytes:
    """What a client gets that sends these pieces."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    answer = b""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.002)
            writer.write(piece)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        lengths = [line[16:] for line in answer.split(b"\r\n") if line.startswith(b"content-length: ")]
        answer += await asyncio.wait_for(reader.readexactly(int(lengths[0])), 5) if lengths else b""
    writer.close()
    return answer


async def test_both_ways_say_the_same_to_service_and_client(world: World) -> None:
    edits = HeaderEdits(set=(Pair("X-Set", "ours"),), add=(Pair("X-Added", "1"),), remove=("X-Gone", "Authorization"))
    answers = HeaderEdits(set=(Pair("X-Kind", "ours"),), add=(Pair("Vary", "x"),), remove=("Server",))
    rules = Cors(origins=("https://app.example.com",), credentials=True)
    world.publish(
        a_route(),
        a_route("plain", strip_prefix=False, retries=0),
        a_route("edited", request_headers=edits, response_headers=answers, rewrite=Rewrite(host="inner", path="/v2")),
        a_route("open", auth_required=False),
        a_route("byquery", auth=Auth(query_parameter="api_key")),
        a_route("limited", rate_limits=("many", "more")),
        a_route("moved", redirect=Redirect(status=302, path="/new"), auth_required=False),
        a_route("small", limits=Limits(body_bytes=10)),
        a_route("gone", service="nobody"),
        a_route("cors", cors=rules, rate_limits=("many",)),
        a_route("scoped", scopes=("special",)),
        rate_limits=(
            RateLimit("default", "many", 100_000, 100_000, "key"),
            RateLimit("default", "more", 100_000, 100_000, "header:x-who"),
        ),
    )
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    chance = random.Random(7)
    direct = 0
    take = gateway.app.direct.take

    def counting(data: bytes, client: Client) -> Steps | bool:
        nonlocal direct
        taken = take(data, client)
        direct += taken is True
        return taken

    gateway.app.direct.take = counting  # type: ignore[method-assign]
    for number in range(400):
        head, body = some_request(chance, world.key)
        kind = chance.choice(
            ["ratelimit: no", "access-control-allow-origin: *", "server: x\r\nx-kind: theirs", "vary: a"]
        )
        status = chance.choice([200, 201, 404, 503, 204, 304])
        length = "" if status in (204, 304) else "content-length: 2\r\n"
        answer = f"HTTP/1.1 {status} X\r\n{kind}\r\nvia: 1.1 inner\r\n{length}\r\n{'ok' if length else ''}".encode()
        service.answers(answer)
        said, heard = [], []
        cut = chance.randrange(1, len(head) - 1)
        for pieces in ([head + body], [head + body], [head + body], [head[:cut], head[cut:] + body], [head + body]):
            gateway.app.guard._breakers.clear()
            service.calls.clear()
            own = (b"my-own", b"0af7651916cd43dd8448eb211c80319c")
            said.append(without_ids(await said_to(gateway, *pieces), *own))
            heard.append([(without_ids(call.head, *own), call.body) for call in service.calls])
        assert [each for each in said if each != said[0]] == [], (number, head, said)
        assert [each for each in heard if each != heard[0]] == [], (number, head, heard)
    assert direct > 400
