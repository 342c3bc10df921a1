"""What the readers of common heads take, llhttp takes and reads alike."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.proxy.answer import read_answer
from gateway.proxy.request import read_request

PLAIN = b"GET /orders/7?a=b HTTP/1.1\r\nHost: example.com\r\nX-Api-Key: k\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Seen:
    """What llhttp makes of the bytes; `whole` are the messages that it takes to have ended."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.heads = self.whole = 0
        self.kept = False
        self.parser: httptools.HttpParser

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))  # as the gateway does with what llhttp gives

    def on_headers_complete(self) -> None:
        self.heads += 1
        self.kept = self.parser.should_keep_alive() and not self.parser.should_upgrade()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole += 1


def pieces(*common: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(common), st.binary(max_size=3))


NAMES = pieces(b"Host", b"X-A", b"Content-Length", b"Connection", b"Transfer-Encoding", b"Upgrade", b"Expect", b"a b")
VALUES = pieces(
    b"example.com",
    b"1",
    b"2",
    b"02",
    b"+2",
    b"chunked",
    b"keep-alive",
    b"close",
    b"",
    b" x\t",
    b"example.com ",
    b"\xff",
    b"\0",
)
LINES = st.builds(
    lambda name, between, value, end: name + between + value + end,
    *(NAMES, st.sampled_from([b": ", b":", b" :", b":\t ", b""]), VALUES),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n ", b" \t\r\n"]),
)


def requests() -> st.SearchStrategy[bytes]:
    methods = pieces(b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"get", b"HEAD", b"PRI")
    targets = pieces(
        b"/", b"/a/b", b"/a?b=c", b"/a?b?c#d", b"//a", b"/%41", b"http://a/b", b"*", b"/a b", b"/\xc3", b"/a\\b"
    )
    versions = st.sampled_from(
        [b" HTTP/1.1\r\n", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/1.1\n", b" http/1.1\r\n", b"\r\n"]
    )
    lines = st.lists(LINES, max_size=5).map(b"".join)
    host = st.sampled_from([b"Host: example.com\r\n", b"Host: example.com\r\n", b""])
    bodies = st.sampled_from([b"", b"", b"x", b"xy", b"xyz", b"GET / HTTP/1.1\r\n"])
    parts = (methods, st.just(b" "), targets, versions, host, lines, st.just(b"\r\n"), bodies)
    return st.tuples(*parts).map(b"".join)


@given(requests())
@example(PLAIN)
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
@settings(max_examples=1500, deadline=None)
def test_a_request_that_is_taken_is_what_llhttp_reads(data: bytes) -> None:
    request = read_request(data)
    if request is None:
        return
    seen = Seen()
    parser = seen.parser = httptools.HttpRequestParser(seen)
    parser.feed_data(data)
    url = httptools.parse_url(seen.url)
    assert (request.method, request.path, request.query) == (parser.get_method().decode(), url.path, url.query or b"")
    assert list(request.fields.all) == seen.fields
    assert (parser.get_http_version(), seen.kept) == ("1.1", not request.last)
    assert (seen.heads, seen.body) == (1, request.body)
    assert seen.whole == (len(request.body) == request.length)


def answers() -> st.SearchStrategy[bytes]:
    starts = pieces(
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 \r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 404 \xe4\r\n",
        ),
        *(
            b"HTTP/1.1 204 No\r\n",
            b"HTTP/1.1 100 Go\r\n",
            b"HTTP/1.1 600 X\r\n",
            b"HTTP/1.1  200 OK\r\n",
            b"HTTP/1.1 200 OK\n",
        ),
    )
    lines = st.lists(LINES, max_size=5).map(b"".join)
    length = st.sampled_from([b"Content-Length: 2\r\n", b"Content-Length: 2\r\n", b""])
    bodies = st.sampled_from([b"", b"o", b"ok", b"ok\r\n"])
    return st.tuples(starts, length, lines, st.just(b"\r\n"), bodies).map(b"".join)


@given(answers())
@example(ANSWER)
@settings(max_examples=1500, deadline=None)
def test_an_answer_that_is_taken_is_what_llhttp_reads(data: bytes) -> None:
    opening = read_answer(data)
    if opening is None:
        return
    seen = Seen()
    parser = seen.parser = httptools.HttpResponseParser(seen)
    parser.feed_data(data[: opening.size + opening.length])  # what follows is not the answer's
    assert opening.answer.status == parser.get_status_code()
    assert list(opening.answer.fields) == seen.fields
    assert (parser.get_http_version(), seen.kept) == ("1.1", True)
    assert seen.heads == 1
    assert seen.body == data[opening.size :][: opening.length]
    assert seen.whole == (len(data) - opening.size >= opening.length)


def test_the_common_heads_are_taken() -> None:
    request = read_request(PLAIN)
    assert request is not None
    assert (request.method, request.path, request.query, request.host) == ("GET", b"/orders/7", b"a=b", "example.com")
    opening = read_answer(ANSWER)
    assert opening is not None
    assert (opening.answer.status, opening.length, ANSWER[opening.size :]) == (200, 2, b"ok")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN + b"GET ",
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"Host", b"Hose"),
        PLAIN.replace(b"X-Api-Key: k", b"Expect: 100-continue"),
        PLAIN.replace(b"X-Api-Key: k", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"X-Api-Key: k", b"Connection: x-api-key"),
        PLAIN.replace(b"X-Api-Key: k", b"Upgrade: websocket"),
        PLAIN.replace(b"X-Api-Key: k", b"Host: example.com"),
        PLAIN.replace(b"X-Api-Key: k", b"Content-Length: 1\r\nContent-Length: 1"),
        PLAIN.replace(b"X-Api-Key", b"X-Api-Key "),
        PLAIN.replace(b"k\r\n", b"k\r\n folded\r\n"),
        PLAIN.replace(b"/orders", b"/" + 9000 * b"o"),
        PLAIN.replace(b": k", b": " + 5000 * b"k"),
        PLAIN.replace(b"X-Api-Key: k\r\n", 101 * b"a: b\r\n"),
    ],
)
def test_what_takes_more_than_a_look_is_left_to_llhttp(data: bytes) -> None:
    assert read_request(data) is None


@pytest.mark.parametrize(
    "data",
    [
        ANSWER[:20],
        ANSWER.replace(b"Content-Type: text/plain", b"Transfer-Encoding: chunked"),
        ANSWER.replace(b"Content-Length: 2", b"Content-Length: 2, 2"),
        ANSWER.replace(b"Content-Length: 2", b"X: 2"),
        ANSWER.replace(b"Content-Type: text/plain", b"Connection: close"),
        ANSWER.replace(b"200 OK", b"204 No Content"),
        ANSWER.replace(b"200 OK", b"101 Switching Protocols"),
        ANSWER.replace(b"text/plain", b"text\x01plain"),
    ],
)
def test_an_answer_that_takes_more_than_a_look_is_left_to_llhttp(data: bytes) -> None:
    assert read_answer(data) is None
