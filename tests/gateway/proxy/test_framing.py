"""Requests whose framing two readers could read differently: refused, or forwarded in one unmistakable form."""

from __future__ import annotations

import pytest

from gateway.proxy.app import Gateway
from tests.gateway.proxy.conftest import Running, Service, World

GOOD = "Host: h\r\nX-API-Key: {key}\r\n"


@pytest.mark.parametrize(
    "request_text",
    [
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n"
        + GOOD
        + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.0\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 1, 1\r\n\r\na",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: +1\r\n\r\na",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 0x1\r\n\r\na",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: \r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "X: a\r\n b\r\n\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "X: a\rb\r\n\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "X: a\0b\r\n\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "X Y: a\r\n\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "Host: other\r\n\r\n",
        "GET /orders HTTP/1.1\r\nX-API-Key: {key}\r\n\r\n",
        "GET /orders HTTP/1.1\r\nHost: a b\r\nX-API-Key: {key}\r\n\r\n",
        "GET /orders HTTP/1.1\r\nHost: a@b/c\r\nX-API-Key: {key}\r\n\r\n",
        "GET /orders/%2e%2e%2fadmin HTTP/1.1\r\n" + GOOD + "\r\n",
        "GET /orders/..%5cadmin HTTP/1.1\r\n" + GOOD + "\r\n",
        "GET /orders/a%00b HTTP/1.1\r\n" + GOOD + "\r\n",
        "GET /orders\\x HTTP/1.1\r\n" + GOOD + "\r\n",
        "GET orders HTTP/1.1\r\n" + GOOD + "\r\n",
        "GET /orders HTTP/1.1 x\r\n" + GOOD + "\r\n",
        "GET /orders HTTP/1.1\r\n" + GOOD + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST /orders HTTP/1.1\r\n" + GOOD + "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_what_can_be_read_in_two_ways_reaches_no_service(
    gateway: Running, world: World, service: Service, request_text: str
) -> None:
    answer = await gateway.raw(request_text.replace("{key}", world.key).encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert not [call for call in service.calls if call.line]


async def test_a_chunked_body_is_framed_anew(gateway: Running, world: World, service: Service) -> None:
    head = f"POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\nTransfer-Encoding: Chunked\r\n\r\n"
    answer = await gateway.raw(head.encode() + b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    call = service.calls[0]
    assert (call.body, call.one("transfer-encoding"), call.all("content-length")) == (b"abcde", "chunked", [])


async def test_two_requests_in_one_segment_stay_two(gateway: Running, world: World, service: Service) -> None:
    one = f"GET /orders/1 HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n"
    two = f"GET /orders/2 HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\nConnection: close\r\n\r\n"
    answer = await gateway.raw((one + two).encode(), answers=2)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert [call.line for call in service.calls] == ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_methods_of_forward_proxies_are_not_taken(gateway: Running, service: Service, method: str) -> None:
    answer = await gateway.raw(f"{method} /orders HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 400 "))
    assert not service.calls


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"h"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"host", b"h"), (b"content-length", b"5"), (b"content-length", b"5")],
        [(b"host", b"a"), (b"host", b"b")],
        [(b"host", b"h"), (b"x", b"a\r\nx-consumer-id: forged")],
        [(b"host", b"h"), (b"x", b"a\nb")],
        [(b"host", b"h"), (b"x\r\ny", b"z")],
        [(b"host", b"h"), (b"x", b"a\0b")],
        [(b"host", b"h"), (b"via", b"1.1 a\r\nx: y")],
        [(b"host", b"h"), (b"authorization", b"x\r\nx: y")],
    ],
)
async def test_it_does_not_rely_on_the_server_for_framing(
    gateway: Running, world: World, service: Service, headers: list[tuple[bytes, bytes]]
) -> None:
    """Servers differ in what they let through to an ASGI application."""
    sent = await call(gateway.app, [*headers, (b"x-api-key", world.key.encode())])
    assert sent[0]["status"] == 400
    assert not service.calls


async def test_a_query_cannot_smuggle_a_request_line(gateway: Running, world: World, service: Service) -> None:
    headers = [(b"host", b"h"), (b"x-api-key", world.key.encode())]
    sent = await call(gateway.app, headers, query_string=b"a HTTP/1.1\r\nx: y")
    assert sent[0]["status"] == 400
    assert not service.calls


async def call(app: Gateway, headers: list[tuple[bytes, bytes]], **fields: object) -> list[dict[str, object]]:
    """The messages that the application sends for a request as some server might hand it over."""
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/orders", "raw_path": b"/orders"}
    scope |= {"query_string": b"", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    scope |= {"headers": headers, **fields}
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"hello", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent
