"""Valid requests and answers, damaged at random: nothing ambiguous gets through, and nothing stays behind.

Each round is one seed, named when it fails. What instances get is read by h11, which takes nothing that is not HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Iterator

import h11
import pytest

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy import table as routing
from gateway.proxy.policies import Timeouts
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, World, a_route

ROUNDS = 400
AT_ONCE = 20

PATIENT = (routing.Upstream("default", "orders", breaker=BreakerPolicy(metrics_only=True)),)
"""A breaker that does not open, however the instance answers."""

PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"-1", b"\x80", b"\xff", b"%2f", b"%00", b"/../"),
    *(b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding : chunked\r\n"),
    *(b"Connection: content-length\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Trailer: host\r\n"),
    b"GET /orders/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to four changes."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(1, 20))
        match rng.randrange(6):
            case 0:
                data = data[:at] + rng.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:end] + data[at:end] + data[end:]
            case 4:
                data = data[:at] + rng.choice(PIECES) + data[end:]
            case _:
                lines = data.split(b"\r\n")
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
                data = b"\r\n".join(lines)
    return data


class Strict:
    """An instance that reads as h11 does: `requests` are those that came whole, by the gateway's id for them."""

    def __init__(self) -> None:
        self.requests: dict[bytes, bytes] = {}
        self.defects: list[str] = []

    async def start(self) -> Strict:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state = h11.Connection(h11.SERVER)
        try:
            while piece := await reader.read(65536):
                state.receive_data(piece)
                while (event := state.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                    if isinstance(event, h11.Request):
                        asked = event
                    elif isinstance(event, h11.EndOfMessage):
                        self._note(asked)
                        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        state.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                        state.send(h11.EndOfMessage())
                        state.start_next_cycle()
                    elif isinstance(event, h11.ConnectionClosed):
                        return
        except h11.RemoteProtocolError as error:
            self.defects.append(str(error))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _note(self, request: h11.Request) -> None:
        ids = [value for name, value in request.headers if name == b"x-request-id"]
        if len(ids) != 1 or ids[0] in self.requests:
            self.defects.append(f"{request.target!r} has ids {ids}")
        else:
            self.requests[ids[0]] = request.target


ANSWER = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [^\r\n]*\r\n((?:[!#-'*+.0-9A-Z^-z|~-]+: [^\r\n\0]*\r\n)*)\r\n")


def answers_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and id of each answer; an assertion error where something else comes between or after them."""
    while data:
        found = ANSWER.match(data)
        assert found, data[:200]
        fields = dict(line.lower().split(b": ", 1) for line in found[2].split(b"\r\n") if line)
        length = int(fields.get(b"content-length", b"0"))
        rest = data[found.end() :]
        assert len(rest) >= length, data[:200]
        data = rest[length:]
        if found[1] != b"100":
            yield int(found[1]), fields[b"x-request-id"]


async def said(gateway: Running, data: bytes) -> bytes:
    """What comes back, until the gateway closes, or has nothing more to say on a connection that it keeps."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    heard = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        # A request that closes the connection in the end shows that all before it was answered.
        writer.write(b"GET /orders/last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            while piece := await reader.read(65536):
                heard += piece
    writer.close()
    return heard


@pytest.fixture
async def untroubled(world: World, caplog: pytest.LogCaptureFixture) -> Running:
    caplog.set_level(logging.ERROR)
    return await world.gateway(gateway_head_seconds=0.5)


async def nothing_is_left(gateway: Running, caplog: pytest.LogCaptureFixture) -> None:
    await eventually(lambda: gateway.app.admission.whole.inside == 0, what="all requests to be over")
    await eventually(lambda: not gateway.connections, what="all connections to be closed")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def requests(key: str) -> list[bytes]:
    head = f"HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\n"
    lines = [
        f"GET /orders/1?a=b {head}Accept: */*\r\n\r\n",
        f"POST /orders/2 {head}Content-Length: 5\r\n\r\nhello",
        f"POST /orders/3 {head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX: 1\r\n\r\n",
        f"GET /orders/4 {head}\r\nPUT /orders/5 {head}Content-Length: 2\r\n\r\nab",
        f"POST /orders/6 {head}Content-Length: 40\r\n\r\nGET /orders/inside HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
    return [line.encode() for line in lines]


async def test_damaged_requests_end_in_4xx_or_reach_an_instance_in_one_strict_form(
    world: World, untroubled: Running, caplog: pytest.LogCaptureFixture
) -> None:
    strict = await Strict().start()
    world.publish(a_route(auth_required=False, timeout_seconds=0.5), upstreams=PATIENT)
    world.register("orders", "a", strict.port)
    await untroubled.knows("orders", 1)
    valid = requests(world.key)
    met: dict[int, int] = {}

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        heard = await said(untroubled, damaged(rng.choice(valid), rng))
        try:
            answers = list(answers_in(heard))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        for status, id in answers:
            assert status == 200 or 400 <= status < 500, f"seed {seed}: {heard!r}"
            assert status != 200 or id in strict.requests or b"anumate-gateway" in heard, f"seed {seed}: {heard!r}"
            met[status] = met.get(status, 0) + 1

    for first in range(0, ROUNDS, AT_ONCE):
        await asyncio.gather(*(one(seed) for seed in range(first, first + AT_ONCE)))
    assert strict.defects == []
    assert met[200] > ROUNDS / 10, met
    assert met[400] > ROUNDS / 10, met
    await nothing_is_left(untroubled, caplog)
    strict.server.close()


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
]


def read_strictly(heard: bytes) -> tuple[int, bytes, bool]:
    """Status, body and whether it is whole, as h11 reads the answer to a GET."""
    state = h11.Connection(h11.CLIENT)
    state.send(h11.Request(method="GET", target="/", headers=[("host", "h"), ("connection", "close")]))
    state.send(h11.EndOfMessage())
    state.receive_data(heard)
    state.receive_data(b"")
    status, body = 0, b""
    while True:
        try:
            event = state.next_event()
        except h11.RemoteProtocolError:
            assert status, heard[:300]  # broken off in its body, never in its head
            return status, body, False
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body, True
        else:
            raise AssertionError(f"{event!r} in {heard[:300]!r}")


async def asked(gateway: Running, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    heard = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while piece := await reader.read(65536):
                heard += piece
    writer.close()
    return heard


async def test_damaged_answers_end_in_502_or_a_strict_answer_and_never_in_somebody_elses(
    world: World, untroubled: Running, caplog: pytest.LogCaptureFixture
) -> None:
    service = await world.service()
    world.publish(
        a_route(auth_required=False, timeout_seconds=0.5, retries=0, timeouts=Timeouts(idle=0.5)), upstreams=PATIENT
    )
    await untroubled.knows("orders", 1)
    await eventually(lambda: untroubled.app.live.loaded, what="the route")
    met: dict[int, int] = {}

    async def answer(call: Call) -> None:
        kind, _, number = call.line.split(" ")[1].removeprefix("/").partition("/")
        if kind == "clean":
            await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(number), number.encode()))
            return
        rng = random.Random(int(number))
        await call.answer(damaged(rng.choice(ANSWERS), rng))
        if rng.random() < 0.7:
            call.writer.close()

    service.handler = answer

    async def one(seed: int) -> None:
        heard = await asked(untroubled, f"/orders/damaged/{seed}")
        try:
            status, _, _ = read_strictly(heard)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
        met[status] = met.get(status, 0) + 1
        assert status < 500 or status in (502, 504) or b"x-anumate-reason" not in heard, f"seed {seed}: {heard!r}"
        # Whatever it left on its connection, the next request gets its own answer.
        assert read_strictly(await asked(untroubled, f"/orders/clean/{seed}")) == (200, str(seed).encode(), True), seed

    for first in range(0, ROUNDS, AT_ONCE):
        await asyncio.gather(*(one(seed) for seed in range(first, first + AT_ONCE)))
    assert met[502] > ROUNDS / 10, met
    assert met[200] > ROUNDS / 20, met
    await nothing_is_left(untroubled, caplog)
