"""Answers of instances byte by byte, and what the client gets of each: 502, or exactly what is said here.

`test_forwarding.py` has the plainest kinds of nonsense.
"""

from __future__ import annotations

import asyncio

import h11
import pytest

from tests.conftest import eventually
from tests.gateway.proxy.conftest import OK, Call, Running, Service, World

BAD = (502, "upstream_malformed")
GONE = (502, "upstream_closed")


async def heard(gateway: Running, method: str = "GET") -> tuple[int, bytes, bool]:
    """Status, body and whether it came whole, read strictly."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    key = gateway.world.key
    writer.write(f"{method} /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n".encode())
    state = h11.Connection(h11.CLIENT)
    state.send(h11.Request(method=method, target="/orders", headers=[("host", "h"), ("connection", "close")]))
    state.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        async with asyncio.timeout(5):
            while (event := state.next_event()).__class__ is not h11.EndOfMessage:
                if event is h11.NEED_DATA:
                    state.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
    except h11.RemoteProtocolError:
        return status, body, False
    finally:
        writer.close()
    return status, body, True


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"hello\r\n\r\n", BAD, id="HTTP/0.9"),
        pytest.param(b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", BAD, id="HTTP/2.0"),
        pytest.param(b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", BAD, id="a status of two digits"),
        pytest.param(b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", BAD, id="a status below 100"),
        pytest.param(b"HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n", BAD, id="a status of letters"),
        pytest.param(b"HTTP/1.1 -200 OK\r\ncontent-length: 0\r\n\r\n", BAD, id="a negative status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\ncontent-length: 0\r\n\r\n", BAD, id="a folded field"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n", BAD, id="a CR in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n", BAD, id="a NUL in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n", BAD, id="a space in a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx : z\r\ncontent-length: 0\r\n\r\n", BAD, id="a space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: z\r\ncontent-length: 0\r\n\r\n", BAD, id="a field without a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", BAD, id="a negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 1_0\r\n\r\n", BAD, id="a length with an underscore"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", BAD, id="a length too large"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n", BAD, id="an empty length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: " + b"0" * 5000 + b"\r\n\r\n",
            BAD,
            id="a length with more digits than Python reads",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n", BAD, id="chunked, but not last"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n", BAD, id="an unknown coding"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
            id="a length and chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
            id="another coding before chunked",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", BAD, id="chunks of HTTP/1.0"
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\ncontent-length: 5\r\n\r\nhello" + OK, BAD, id="an interim answer with a body"
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + OK,
            BAD,
            id="an interim answer in chunks",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 30, BAD, id="a flood of interim answers"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", BAD, id="a switch that nobody asked for"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, BAD, id="a flood of fields"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", GONE, id="an interim answer and no other"),
        pytest.param(b"HTTP/1.1 200 O", GONE, id="half a status line"),
    ],
)
async def test_each_malformed_answer_is_a_bad_gateway(
    gateway: Running, service: Service, answer: bytes, expected: tuple[int, str]
) -> None:
    service.answers(answer, close=True)
    got = await gateway.client.post("/orders", content=b"x")
    assert (got.status_code, got.json()["code"]) == expected
    service.answers(OK)
    assert (await gateway.get()).text == "ok"


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        pytest.param(
            "GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", (204, b""), id="204 with one"
        ),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello", (304, b""), id="304"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", (200, b""), id="HEAD with one"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", (200, b""), id="HEAD in chunks"),
        pytest.param("GET", b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", None, id="lines that end in LF"),
        pytest.param("GET", b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None, id="an empty line before it"),
        pytest.param("GET", b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", (200, b"ok"), id="no reason phrase"),
        pytest.param("GET", b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", (299, b"ok"), id="an odd status"),
        pytest.param(
            "GET",
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            (200, b"ok"),
            id="an interim answer before it",
        ),
        pytest.param(
            "GET",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nset-cookie: a=b\r\n\r\n",
            (200, b"ok"),
            id="an extension and a trailer",
        ),
    ],
)
async def test_each_odd_answer_is_passed_on_in_one_strict_form_or_refused(
    gateway: Running, service: Service, method: str, answer: bytes, expected: tuple[int, bytes] | None
) -> None:
    service.answers(answer)
    status, body, whole = await heard(gateway, method)
    assert whole
    assert (status, body) == expected if expected is not None else (status in (200, 502) and b"set-cookie" not in body)
    service.answers(OK)
    assert await heard(gateway) == (200, b"ok", True)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome", id="fewer bytes than it says"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n", id="no last chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n", id="a broken chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsom", id="half a chunk"),
    ],
)
async def test_a_truncated_answer_never_looks_whole(gateway: Running, service: Service, answer: bytes) -> None:
    async def handler(call: Call) -> None:
        await call.answer(answer)
        await asyncio.sleep(0.05)  # let the gateway begin its answer before the end comes
        call.writer.close()

    service.handler = handler
    status, body, whole = await heard(gateway)
    assert (status, whole) in [(200, False), (502, True)], body


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])  # the short way, once there is a connection, and the long one
async def test_an_instance_cannot_nominate_its_length_away(gateway: Running, service: Service, method: str) -> None:
    service.answers(b"HTTP/1.1 200 OK\r\nconnection: content-length, x\r\nx: y\r\ncontent-length: 2\r\n\r\nok")
    for _ in range(2):
        answer = await gateway.client.request(method, "/orders")
        assert (answer.headers["content-length"], answer.text, "x" in answer.headers) == ("2", "ok", False)


CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n"


async def http_1_0(gateway: Running, method: str = "GET", fields: str = "") -> tuple[bytes, bytes]:
    """Head and body of the answer that a client of HTTP/1.0 gets, whose end is that of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{method} /orders HTTP/1.0\r\nX-API-Key: {gateway.world.key}\r\n{fields}\r\n".encode())
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            return head, await reader.read()
        finally:
            writer.close()


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"])
@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("GET", CHUNKS + b"3\r\n, b\r\n0\r\n\r\n", b"some, b", id="chunks"),
        pytest.param("GET", b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", id="until the end"),
        pytest.param("GET", b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end", id="until the end of HTTP/1.0"),
        pytest.param("GET", OK, b"ok", id="a length"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="no content"),
        pytest.param("HEAD", CHUNKS, b"", id="HEAD"),
    ],
)
async def test_http_1_0_gets_no_chunks(
    gateway: Running, service: Service, method: str, answer: bytes, body: bytes, fields: str
) -> None:
    service.answers(answer, close=answer != OK)
    head, got = await http_1_0(gateway, method, fields)
    assert got == body
    assert head.count(b"connection: close\r\n") == 1
    assert b"transfer-encoding" not in head
    assert (b"content-length" in head) is (answer == OK)


async def test_a_truncated_answer_ends_with_a_reset_where_nothing_else_could_tell(
    gateway: Running, service: Service
) -> None:
    service.answers(CHUNKS, close=True)
    with pytest.raises(ConnectionResetError):
        await http_1_0(gateway)


@pytest.mark.parametrize(("version", "via"), [(b"1.0", "1.0 anumate"), (b"1.1", "1.1 anumate")])
@pytest.mark.parametrize("method", ["GET", "HEAD"])  # the short way and the long one
async def test_via_says_in_which_version_an_answer_came(
    gateway: Running, service: Service, method: str, version: bytes, via: str
) -> None:
    service.answers(OK.replace(b"1.1", version))
    answer = await gateway.client.request(method, "/orders")
    assert answer.headers.get_list("via") == [via]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK, True),
        (OK + b"x", False),
        (OK + b"\r\n", True),
        (OK + OK, False),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nhello", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", False),
    ],
)
async def test_a_connection_is_used_again_only_when_nothing_is_left_on_it(
    gateway: Running, service: Service, answer: bytes, kept: bool
) -> None:
    service.answers(answer)
    await heard(gateway)
    service.answers(OK)
    assert await heard(gateway) == (200, b"ok", True)
    assert (service.connections == 1) is kept


async def test_bytes_on_an_idle_connection_end_it(gateway: Running, world: World, service: Service) -> None:
    calls: list[Call] = []

    async def handler(call: Call) -> None:
        calls.append(call)
        await call.answer()

    service.handler = handler
    await heard(gateway)
    calls[0].writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    await eventually(lambda: service.open == 0, what="the gateway to close the connection")
    assert await heard(gateway) == (200, b"ok", True)
    assert service.connections == 2
