"""Requests that come before the ones ahead of them are answered: in order, few of them kept, nobody else held up."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.handshake import accept_of
from gateway.proxy.pipelining import ASIDE_LIMIT, Chunks, seeming_end
from gateway.proxy.serving import WRITE_LIMIT
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World
from tests.gateway.proxy.wires import Connect, Wire, at_rest, connect, gateway

__all__ = ["connect", "gateway"]  # fixtures

READ = 256 * 1024
"""As much as asyncio reads at once."""

CHUNKED = (
    b"POST /nowhere HTTP/1.1\r\nHost: h\r\nX-Request-ID: %08d\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
)
KINDS = {
    "small": b"GET /nowhere HTTP/1.1\r\nHost: h\r\nX-Request-ID: %08d\r\n\r\n",
    "chunked": CHUNKED,
    "own": b"GET /-/livez HTTP/1.1\r\nHost: h\r\nX-Request-ID: %08d\r\n\r\n",
    "large": b"POST /nowhere HTTP/1.1\r\nHost: h\r\nX-Request-ID: %08d\r\nContent-Length: 70000\r\n\r\n"
    + b"x" * 70_000,
    "large and chunked": CHUNKED.replace(b"1\r\na\r\n", b"11170\r\n" + b"x" * 70_000 + b"\r\n"),
}


def side_of(gateway: Running, client: Any) -> Any:
    """The gateway's side of a client's connection."""
    (server,) = [each for each in gateway.connections if each.client == client]
    return server


@pytest.mark.parametrize("kind", KINDS)
async def test_who_asks_on_and_reads_nothing_is_not_read_further_and_others_are_served(
    gateway: Running, kind: str
) -> None:
    loop = asyncio.get_running_loop()
    one = KINDS[kind]
    batch = max(1, 16 * 1024 // len(one))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", gateway.port))
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await loop.sock_sendall(client, b"".join(one % number for number in range(sent, sent + batch)))
            sent += batch

    asking = asyncio.create_task(flood())
    await eventually(lambda: gateway.connections and sent, what="the first requests")
    server = side_of(gateway, client.getsockname())
    server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    server.transport.set_write_buffer_limits(high=32 * 1024)
    rest, before = 0, 0
    async with asyncio.timeout(30):
        while rest < 10:  # the system takes more of its answers for a while
            assert (await gateway.get()).status_code == 200
            kept = len(server.flow.waiting)
            assert kept <= ASIDE_LIMIT + READ
            assert not server.pipeline
            assert server.transport.get_write_buffer_size() < WRITE_LIMIT
            assert gateway.app.admission.whole.inside <= 1
            held = server.flow.write_paused and server.flow.read_paused and kept == before
            rest, before = rest + 1 if held else 0, kept

    # Once it reads, every request is answered, in its turn.
    numbers, heard = 0, b""
    asking.cancel()
    while numbers < sent:
        heard += await asyncio.wait_for(loop.sock_recv(client, READ), 10)
        *lines, heard = heard.split(b"\r\n")
        for line in lines:
            if line.startswith(b"x-request-id: "):
                assert int(line[14:]) == numbers
                numbers += 1
    client.close()
    await eventually(lambda: at_rest(gateway), what="rest")


async def test_what_comes_in_one_packet_is_answered_in_turn_with_others_in_between(
    connect: Connect, gateway: Running
) -> None:
    flood, other = await connect(gateway), await connect(gateway)
    count = 3000
    flood.writer.write(b"".join(KINDS["small"] % number for number in range(count)))
    server = side_of(gateway, flood.writer.get_extra_info("sockname"))
    await eventually(lambda: server.flow.waiting, what="the flood")
    other.ask()
    assert (await other.answer())[0] == 200
    assert server.flow.waiting, "the other one had to wait for the whole flood"
    for number in range(count):
        assert b"x-request-id: %08d\r\n" % number in (await flood.answer())[1]


def some_requests(chance: random.Random, wire: Wire, count: int) -> tuple[bytes, list[bytes]]:
    """Several in a row, and what the service says to each."""
    data, wanted = b"", []
    for number in range(count):
        path, seen = f"/orders/{number}", f"/{number} ".encode()
        body = chance.choice([b"", b"\r\n\r\n", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n", bytes(3000), b"\r\n" * 40])
        match chance.choice(["get", "length", "chunked", "zeros"]):
            case "get":
                data += wire.head(path=path)
                body = b""
            case "length":
                data += wire.head("POST", path, f"Content-Length: {len(body)}") + body
            case "zeros":
                data += wire.head("POST", path, f"content-length:\t{len(body):016d} ") + body
            case "chunked":
                data += wire.head("POST", path, "Transfer-Encoding: chunked")
                for at in range(0, len(body), 1000):
                    piece = body[at : at + 1000]
                    data += b"%x;a=b\r\n%b\r\n" % (len(piece), piece)
                data += chance.choice([b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\nA: b\r\nC: d\r\n\r\n"])
        wanted.append(seen + body)
    return data, wanted


async def tell(call: Call) -> None:
    """Answer with what was asked, and grant each WebSocket."""
    if call.all("upgrade"):
        fields = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: "
        fields += accept_of(call.one("sec-websocket-key").encode())
        await call.answer(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n" % fields)
        call.body = await call.reader.readexactly(8)
        await call.answer(b"\x81\x02ok")
        return
    await call.read_body()
    said = call.line.split()[1].encode() + b" " + call.body
    await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))


HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
SAMPLE = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


async def test_requests_of_all_kinds_however_cut_are_answered_in_order_up_to_an_upgrade(
    connect: Connect, gateway: Running, service: Service
) -> None:
    service.handler = tell
    chance = random.Random(5)
    for _ in range(30):
        wire = await connect(gateway)
        data, wanted = some_requests(chance, wire, chance.choice([1, 2, 6]))
        data += wire.head("GET", "/orders", *HANDSHAKE, SAMPLE) + b"\x81\x82\x00\x00\x00\x00hi"
        cuts = sorted(chance.randrange(len(data)) for _ in range(chance.choice([0, 0, 1, 5])))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            wire.writer.write(data[start:end])
            await asyncio.sleep(chance.choice([0, 0.002]))
        for want in wanted:
            assert (await wire.answer())[2] == want
        assert (await wire.answer())[0] == 101
        assert await asyncio.wait_for(wire.reader.readexactly(4), 5) == b"\x81\x02ok"
        assert service.calls[-1].body[-2:] == b"hi"
        wire.writer.close()


async def test_requests_byte_by_byte_are_told_apart(connect: Connect, gateway: Running, service: Service) -> None:
    service.handler = tell
    wire = await connect(gateway)
    server = side_of(gateway, wire.writer.get_extra_info("sockname"))
    data, wanted = some_requests(random.Random(8), wire, 6)
    for byte in data:
        server.data_received(bytes([byte]))
    for want in wanted:
        assert (await wire.answer())[2] == want


async def test_what_follows_a_request_that_was_answered_before_it_was_whole_has_its_turn(
    connect: Connect, gateway: Running
) -> None:
    wire = await connect(gateway)
    head = b"POST /nowhere HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire.writer.write(head + b"1\r\na\r\n")
    assert (await wire.answer())[0] == 404
    wire.writer.write(b"1\r\nb\r\n0\r\n\r\n" + wire.head() + wire.head())
    assert [(await wire.answer())[0] for _ in range(2)] == [200, 200]


async def test_nothing_is_kept_of_who_is_told_that_the_connection_ends(
    connect: Connect, gateway: Running, world: World
) -> None:
    wire = await connect(gateway)
    wire.writer.write(wire.head() + b"nonsense\r\n\r\n" + wire.head() * 10_000)
    server = side_of(gateway, wire.writer.get_extra_info("sockname"))
    assert (await wire.answer())[0] == 200
    assert (await wire.answer())[0] == 400
    assert not server.flow.waiting
    assert await wire.closed() == b""


@given(st.lists(st.sampled_from([b"GET / HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"\r\n", b"abc", b"Host: h\r\n"])))
def test_where_a_request_seems_to_end_is_never_nowhere(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert 0 < seeming_end(data) <= len(data) or not data


@given(st.integers(1, 60))
def test_a_chunked_body_ends_where_it_does_however_it_is_cut(step: int) -> None:
    body = b"8;a=b\r\n\r\n\r\n\r\n\r\n\r\n5\r\n0\r\n\r\n\r\n00\r\nA: b\r\n\r\n"
    data, chunks = body + b"GET / HTTP/1.1\r\n\r\n", Chunks()
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    read = 0
    for piece in pieces:
        end = chunks.end(piece, 0)
        read += end
        if read == len(body):
            break
        assert end == len(piece)
    assert read == len(body)


@pytest.mark.parametrize("size", [b"-5", b"x", b"", b"-0x5"])
def test_what_is_no_size_of_a_chunk_is_left_to_the_parser(size: bytes) -> None:
    assert Chunks().end(size + b"\r\nabc", 0) == len(size) + 5


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize(
    "begun", [b"GET / HTTP/1.1\r\nHost: h", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0"]
)
def test_the_parser_takes_no_other_end_of_a_request(begun: bytes, end: bytes) -> None:
    ended = []

    class Heard:
        def on_message_complete(self) -> None:
            ended.append(True)

    parser = httptools.HttpRequestParser(Heard())
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(begun + end)
    assert not ended
