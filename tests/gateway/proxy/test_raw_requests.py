"""Requests byte by byte, and what becomes of each: refused with its code, or passed on in one form that is said here.

`test_framing.py` has those whose framing is ambiguous, `test_server.py` those that are too large or too slow.
"""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from gateway.proxy.fields import FORWARDED, HANDLED, HOP_BY_HOP
from gateway.proxy.policies import HeaderEdits, Mirror, Pair, Rewrite
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Running, Service, World, a_route

GOOD = "Host: h\r\nX-API-Key: {key}\r\n"
MALFORMED = (400, "malformed_request")


async def heard(gateway: Running, text: str) -> tuple[int, str]:
    """Status of the first answer, and the code of its problem; (0, "") where the gateway closes without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(text.replace("{key}", gateway.world.key).encode("latin-1"))
    async with asyncio.timeout(5):
        head = b""
        while b"\r\n\r\n" not in head and (piece := await reader.read(65536)):
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        if not head:
            return 0, ""
        length = re.search(rb"content-length: (\d+)", head)
        body += await reader.readexactly(int(length[1]) - len(body)) if length else b""
    writer.close()
    problem = b"problem+json" in head
    return int(head.split(b" ")[1]), str(json.loads(body)["code"]) if problem else ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        pytest.param("GET /orders\r\n\r\n", MALFORMED, id="HTTP/0.9"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MALFORMED, id="the preface of HTTP/2"),
        pytest.param("GET /orders HTTP/2.0\r\n" + GOOD + "\r\n", MALFORMED, id="HTTP/2.0"),
        pytest.param("GET /orders HTTP/3.0\r\n" + GOOD + "\r\n", MALFORMED, id="HTTP/3.0"),
        pytest.param("GET /orders HTTP/1.10\r\n" + GOOD + "\r\n", MALFORMED, id="a version with three digits"),
        pytest.param("GET /orders http/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a version in lower case"),
        pytest.param("GET  /orders HTTP/1.1\r\n" + GOOD + "\r\n", (200, ""), id="two spaces before the target"),
        pytest.param("GET\t/orders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a tab before the target"),
        pytest.param("GET /or ders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a space in the target"),
        pytest.param("G\0T /orders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a NUL in the method"),
        pytest.param("GET /ord\0ers HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a NUL in the path"),
        pytest.param("GET /ord\rers HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a CR in the path"),
        pytest.param("GET /orders/\xe9 HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a byte beyond ASCII in the path"),
        pytest.param("GET /orders%zz HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a broken escape"),
        pytest.param("GET /orders/..;/x HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="dots with a parameter"),
        pytest.param("GET /orders/%252e%252e/x HTTP/1.1\r\n" + GOOD + "\r\n", (200, ""), id="an escape of an escape"),
        pytest.param("get /orders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a method in lower case"),
        pytest.param("BREW /orders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="a method that nobody knows"),
        pytest.param("A" * 9000 + " /orders HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="an endless method"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + ": x\r\n\r\n", MALFORMED, id="a field without a name"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + "X\r\n\r\n", MALFORMED, id="a field without a colon"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + "X : y\r\n\r\n", MALFORMED, id="a space before the colon"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + "X\x0b: y\r\n\r\n", MALFORMED, id="a control in a name"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + "X\xe9: y\r\n\r\n", MALFORMED, id="a name beyond ASCII"),
        pytest.param("GET /orders HTTP/1.1\r\n X: y\r\n" + GOOD + "\r\n", MALFORMED, id="a fold of the request line"),
        pytest.param("GET /orders HTTP/1.1\r\nHost:\r\nX-API-Key: {key}\r\n\r\n", MALFORMED, id="an empty Host"),
        pytest.param("GET /orders HTTP/1.1\r\nHost: h,i\r\nX-API-Key: {key}\r\n\r\n", MALFORMED, id="two in one Host"),
        pytest.param("GET /orders HTTP/1.1\r\nHost: h:80:80\r\nX-API-Key: {key}\r\n\r\n", MALFORMED, id="two ports"),
        pytest.param("GET /orders HTTP/1.1\r\nHost: h\r\nHost: h\r\nX-API-Key: {key}\r\n\r\n", MALFORMED, id="twice"),
        pytest.param("GET h:80 HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="authority-form"),
        pytest.param("GET * HTTP/1.1\r\n" + GOOD + "\r\n", MALFORMED, id="asterisk-form of a GET"),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: -1\r\n\r\na", MALFORMED, id="a negative one"
        ),
        pytest.param("POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 1_0\r\n\r\na", MALFORMED, id="_ in it"),
        pytest.param("POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 1 1\r\n\r\na", MALFORMED, id="two numbers"),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 18446744073709551617\r\n\r\na",
            MALFORMED,
            id="a length that overflows",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + f"Content-Length: {'0' * 5000}1\r\n\r\na",
            MALFORMED,
            id="a length with more digits than Python reads",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
            MALFORMED,
            id="the same length twice",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            MALFORMED,
            id="chunked twice",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            MALFORMED,
            id="chunked, but not last",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            MALFORMED,
            id="a folded transfer coding",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
            MALFORMED,
            id="a quoted transfer coding",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n",
            MALFORMED,
            id="a negative chunk",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            MALFORMED,
            id="a chunk's size with a prefix",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n" + "f" * 17 + "\r\na",
            MALFORMED,
            id="a chunk's size that overflows",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
            MALFORMED,
            id="chunks that end in LF",
        ),
        pytest.param(
            "POST /orders HTTP/1.1\r\n" + GOOD + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            MALFORMED,
            id="a chunk longer than it says",
        ),
        pytest.param("POST /orders HTTP/1.1\r\n" + GOOD + "Expect: 200-ok\r\n\r\n", (200, ""), id="an unknown Expect"),
        pytest.param("GET /orders HTTP/1.1\r\n" + GOOD + "Content-Length: 0\r\n\r\n", (200, ""), id="an empty body"),
        pytest.param("\r\nGET /orders HTTP/1.1\r\n" + GOOD + "\r\n", (200, ""), id="an empty line before the request"),
    ],
)
async def test_each_request_ends_as_the_table_says(
    gateway: Running, service: Service, text: str, answer: tuple[int, str]
) -> None:
    assert await heard(gateway, text) == answer
    # Whatever the instance has heard, it has not heard a whole request that was refused.
    for call in service.calls:
        assert answer[0] == 200 or call.all("transfer-encoding") == ["chunked"], call.head


@pytest.mark.parametrize(
    ("field", "absent"),
    [
        ("Connection: host", None),
        ("Connection: x-request-id", None),
        ("Connection: x-forwarded-for", None),
        ("Connection: via", None),
        ("Connection: content-length", None),
        ("Connection: X-Mine\r\nX-Mine: 1", "x-mine"),
        ("Connection: close, X-Mine\r\nX-Mine: 1", "x-mine"),
        ("Connection: x-mine\r\nConnection: x-other\r\nX-Mine: 1", "x-mine"),
        ("Keep-Alive: timeout=5", "keep-alive"),
        ("TE: trailers", "te"),
        ("Trailer: X-Sum", "trailer"),
        ("Proxy-Connection: keep-alive", "proxy-connection"),
        ("Proxy-Authorization: Basic x", "proxy-authorization"),
        ("X-Consumer-Id: forged", "x-consumer-id "),
        ("X_Consumer_Id: forged", "x_consumer_id"),
        ("X_Forwarded_For: 9.9.9.9", "x_forwarded_for"),
    ],
)
async def test_a_client_can_nominate_its_own_fields_away_and_none_of_ours(
    gateway: Running, world: World, service: Service, field: str, absent: str | None
) -> None:
    head = f"POST /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{field}\r\nContent-Length: 2\r\n\r\nab"
    assert (await gateway.raw(head.encode())).startswith(b"HTTP/1.1 200 ")
    (call,) = service.calls
    assert call.body == b"ab"
    for name in ("host", "x-request-id", "x-forwarded-for", "via", "content-length", "traceparent", "x-consumer-id"):
        assert len(call.all(name)) == 1, (name, call.head)
    assert call.one("x-consumer-id") == world.key_id
    assert absent is None or not call.all(absent.strip()) or absent.endswith(" "), call.head


# What a service gets of each field that the gateway handles, as the client sent it, and as it nominated it away.
SENT = {
    **{name: None for name in HOP_BY_HOP | {b"expect", b"x-api-key", b"forwarded", b"x-real-ip", b"proxy"}},
    **{name: "gateway" for name in (*FORWARDED, b"host", b"content-length", b"via", b"x-request-id", b"traceparent")},
    **{name: "client" for name in (b"authorization", b"tracestate")},
}


@pytest.mark.parametrize("name", sorted(HANDLED))
async def test_of_fields_that_are_handled_only_the_clients_own_can_be_nominated_away(
    gateway: Running, world: World, service: Service, name: bytes
) -> None:
    values = {b"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", b"tracestate": "a=b", b"authorization": "Basic eA=="}
    mine = {"Host": "h", "X-API-Key": world.key, "Content-Length": "2", "Traceparent": values[b"traceparent"]}
    if name not in (
        b"host",
        b"x-api-key",
        b"content-length",
        b"traceparent",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
    ):
        mine[name.decode()] = values.get(name, "1.1 mine")
    for nomination in ("", name.decode(), name.decode().upper() + ", close", "x, " + name.decode()):
        lines = [f"{each}: {value}" for each, value in mine.items()]
        lines += [f"Connection: {nomination}", "Connection: x-other"] if nomination else []
        request = "\r\n".join(("POST /orders HTTP/1.1", *lines, "", "ab"))
        assert (await gateway.raw(request.encode())).startswith(b"HTTP/1.1 200 ")
        call = service.calls[-1]
        assert (call.body, call.one("x-consumer-id")) == (b"ab", world.key_id)
        of_client = 1 if SENT[name] == "client" and not nomination else 0
        assert len(call.all(name.decode())) == (1 if SENT[name] == "gateway" else of_client), call.head


@pytest.mark.parametrize("name", ["X-Consumer-Id", "X-Consumer-Name", "X-Consumer-Tenant", "X-Set", "Via", "Cookie"])
async def test_what_the_gateway_adds_cannot_be_nominated_away(world: World, service: Service, name: str) -> None:
    world.publish(a_route(request_headers=HeaderEdits(set=(Pair("X-Set", "ours"), Pair("Cookie", "ours")))))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    head = f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{name}: mine\r\nConnection: {name}\r\n\r\n"
    assert (await gateway.raw(head.encode())).startswith(b"HTTP/1.1 200 ")
    assert len(service.calls[0].all(name.lower())) == 1


async def test_an_instance_may_nominate_its_fields_in_several_lines(gateway: Running, service: Service) -> None:
    service.answers(
        b"HTTP/1.1 200 OK\r\nconnection: x-one\r\nx-one: 1\r\nconnection: keep-alive, X-Two\r\nx-two: 2\r\n"
        b"content-length: 2\r\n\r\nok"
    )
    answer = await gateway.get()
    assert not {"x-one", "x-two", "keep-alive"} & set(answer.headers)


@pytest.mark.parametrize(
    "lines",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: HTTP2-Settings\r\nUpgrade: h2c, TLS/1.0\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: H2C\r\nHTTP2_Settings: AAMAAABkAAQAAP__\r\n",
    ],
)
async def test_nobody_gets_to_http_2_behind_the_gateway(
    gateway: Running, world: World, service: Service, lines: str
) -> None:
    head = f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{lines}\r\n"
    after = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"
    answer = await gateway.raw(head.encode() + after, answers=2)
    (call,) = service.calls
    assert not {"connection", "upgrade", "http2-settings", "http2_settings"} & {name for name, _ in call.fields}
    assert b"HTTP/1.1 101" not in answer
    # An instance that would switch all the same is not followed.
    service.answers(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert (await gateway.raw(head.encode() + after)).startswith(b"HTTP/1.1 502 ")


async def test_a_handshake_for_a_websocket_takes_no_other_protocol_with_it(
    gateway: Running, world: World, service: Service
) -> None:
    head = (
        f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: websocket, h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    service.answers(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert (await gateway.raw(head.encode())).startswith(b"HTTP/1.1 502 ")
    (call,) = service.calls
    assert (call.one("connection"), call.one("upgrade")) == ("Upgrade", "websocket")
    assert not call.all("http2-settings")


@pytest.mark.parametrize(
    ("target", "host", "line"),
    [
        ("http://other/orders/1?a=b", "other", "GET /1?a=b HTTP/1.1"),
        ("HTTP://other:81/orders/1", "other:81", "GET /1 HTTP/1.1"),
        ("https://[::1]/orders/1", "[::1]", "GET /1 HTTP/1.1"),
    ],
)
async def test_the_host_of_an_absolute_target_counts(
    gateway: Running, world: World, service: Service, target: str, host: str, line: str
) -> None:
    """RFC 9112 §3.2.2: not that of the Host field, which another server may have judged."""
    answer = await gateway.raw(f"GET {target} HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    (call,) = service.calls
    assert (call.one("host"), call.line) == (host, line)


@pytest.mark.parametrize(
    "target", ["http://", "http:///orders", "http://user@other/orders", "ftp://other/orders", "http://other/orders#x"]
)
async def test_an_absolute_target_that_names_no_host_is_refused(
    gateway: Running, service: Service, target: str
) -> None:
    assert await heard(gateway, f"GET {target} HTTP/1.1\r\n{GOOD}\r\n") == MALFORMED
    assert not service.calls


async def in_pieces(gateway: Running, text: str, *, cut: int) -> bytes:
    """The answer to a request of which the first bytes come alone, which takes the long way; with `cut` 0 the whole
    comes at once, which may take the short one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    data = text.replace("{key}", gateway.world.key).encode("latin-1")
    if cut:
        writer.write(data[:cut])
        await eventually(lambda: any(each._unread for each in gateway.connections), what="the first bytes to arrive")
    writer.write(data[cut:])
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        pytest.param("/orders#x", "h", 400, id="a fragment"),
        pytest.param("/orders?a=b#x", "h", 400, id="a fragment behind a query"),
        pytest.param("/orders#", "h", 400, id="an empty fragment"),
        pytest.param("/orders/%23x", "h", 200, id="an escaped number sign"),
        pytest.param("/orders/..%c0%af..%c0%afadmin", "h", 400, id="slashes in overlong UTF-8"),
        pytest.param("/orders", "h:65535", 200, id="the last port"),
        pytest.param("/orders", "h:0", 200, id="a port that RFC 3986 allows"),
        pytest.param("/orders", "h:", 200, id="an empty port"),
        pytest.param("/orders", "h:65536", 400, id="a port too large"),
        pytest.param("/orders", "h:99999", 400, id="a port far too large"),
        pytest.param("/orders", "h:-1", 400, id="a negative port"),
        pytest.param("/orders", "h:8o", 400, id="a port with a letter"),
        pytest.param("/orders", "[::1]", 200, id="an IPv6 address"),
        pytest.param("/orders", "[::1]:80", 200, id="an IPv6 address with a port"),
        pytest.param("/orders", "[::1]:x", 400, id="an IPv6 address with a word for a port"),
        pytest.param("/orders", "[:::]", 400, id="an IPv6 address that is none"),
        pytest.param("/orders", "[1.2.3.4]", 400, id="an IPv4 address in brackets"),
        pytest.param("/orders", "::1", 400, id="an IPv6 address without brackets"),
    ],
)
async def test_target_and_host_are_judged_alike_on_both_ways(
    gateway: Running, service: Service, target: str, host: str, status: int, cut: int
) -> None:
    text = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {{key}}\r\n\r\n"
    assert int((await in_pieces(gateway, text, cut=cut))[9:12]) == status
    assert [call.one("host") for call in service.calls] == ([host] if status == 200 else [])


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("path", ["//orders", "/orders//", "///orders//7", "/./%2e//orders", "//-//livez"])
async def test_more_slashes_do_not_get_round_a_rule(world: World, service: Service, path: str, cut: int) -> None:
    world.publish(a_route(), a_route("open", path="/", auth_required=False, strip_prefix=False))
    gateway = await world.gateway()
    status = 200 if "livez" in path else 401
    answer = await in_pieces(gateway, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n", cut=cut)
    assert (int(answer[9:12]), service.calls) == (status, [])


async def test_more_slashes_are_passed_on_as_they_came(world: World, service: Service) -> None:
    world.publish(a_route("any", path="/", strip_prefix=False))
    gateway = await world.gateway()
    for path in ("//orders", "/fetch/https://h/x", "/a//"):
        assert (await heard(gateway, f"GET {path} HTTP/1.1\r\n{GOOD}\r\n"))[0] == 200
        assert service.calls[-1].line == f"GET {path} HTTP/1.1"


@pytest.mark.parametrize(("version", "via"), [("1.0", "1.0 anumate"), ("1.1", "1.1 anumate")])
@pytest.mark.parametrize("cut", [0, 1])
async def test_via_says_in_which_version_a_request_came(
    gateway: Running, service: Service, version: str, via: str, cut: int
) -> None:
    await in_pieces(gateway, f"GET /orders HTTP/{version}\r\n{GOOD}\r\n", cut=cut)
    await in_pieces(gateway, f"GET /orders HTTP/{version}\r\n{GOOD}Via: 1.1 before\r\n\r\n", cut=cut)
    assert [call.one("via") for call in service.calls] == [via, f"1.1 before, {via}"]
    assert [call.line for call in service.calls] == ["GET / HTTP/1.1"] * 2


async def test_a_request_that_names_no_host_gets_that_of_its_instance(world: World, service: Service) -> None:
    mirrored, named = await world.service("copies"), await world.service("named")
    world.publish(a_route(mirror=Mirror(service="copies")), a_route("named", "named", rewrite=Rewrite(host="inner")))
    gateway = await world.gateway()
    for path in ("/orders", "/named"):
        assert (await heard(gateway, f"GET {path} HTTP/1.0\r\nX-API-Key: {{key}}\r\n\r\n"))[0] == 200
    await eventually(lambda: mirrored.calls, what="the copy to arrive")
    for each in (service, mirrored):
        (call,) = each.calls
        assert (call.line, call.one("host")) == ("GET / HTTP/1.1", f"127.0.0.1:{each.port}")
        assert call.one("x-forwarded-for") == "127.0.0.1"
        assert not call.all("x-forwarded-host")
    assert named.calls[0].one("host") == "inner"


async def test_an_absolute_target_names_the_host_where_http_1_0_has_no_field(
    gateway: Running, service: Service
) -> None:
    lines = "\r\nX-API-Key: {key}\r\n\r\n"
    assert (await heard(gateway, f"GET http://other:81/orders HTTP/1.0{lines}"))[0] == 200
    assert await heard(gateway, f"GET http://other:81/orders HTTP/1.1{lines}") == MALFORMED
    (call,) = service.calls
    assert (call.one("host"), call.one("x-forwarded-host")) == ("other:81", "other:81")


async def test_http_1_0_knows_no_interim_answer(gateway: Running, world: World, service: Service) -> None:
    head = "POST /orders HTTP/{version}\r\n" + GOOD + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    for version, begin in (("1.0", b"HTTP/1.1 200 "), ("1.1", b"HTTP/1.1 100 ")):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.replace("{version}", version).replace("{key}", world.key).encode())
        if version == "1.0":
            await eventually(lambda: gateway.app.admission.whole.inside, what="the request to be read")
            writer.write(b"ab")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n")).startswith(begin)
        writer.close()


async def test_http_1_0_knows_no_other_protocol(gateway: Running, service: Service) -> None:
    handshake = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    assert await heard(gateway, f"GET /orders HTTP/1.0\r\n{GOOD}{handshake}\r\n") == (200, "")
    (call,) = service.calls
    assert not call.all("upgrade")


@pytest.mark.parametrize(
    "fields", ["Host: a b\r\n", "Host: a@b\r\n", "Host: a:99999\r\n", "Host:\r\n", "Host: a\r\n" * 2]
)
async def test_an_absolute_target_makes_no_good_host_of_a_bad_one(
    gateway: Running, service: Service, fields: str
) -> None:
    """RFC 9112 §3.2: whatever the target is."""
    assert await heard(gateway, f"GET http://h/orders HTTP/1.1\r\n{fields}X-API-Key: {{key}}\r\n\r\n") == MALFORMED
    assert not service.calls


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("target", "status"), [("*", 204), ("http://h", 204), ("http://h/", 404), ("http://h?x", 404)])
async def test_options_of_the_gateway_as_a_whole_may_be_asked_for_in_both_forms(
    gateway: Running, target: str, status: int, version: str
) -> None:
    """RFC 9112 §3.2.4: an address without a path means `*`."""
    answer = await in_pieces(gateway, f"OPTIONS {target} HTTP/{version}\r\nHost: h\r\n\r\n", cut=0)
    assert int(answer[9:12]) == status
    assert (b"allow: GET, HEAD" in answer) is (status == 204)


async def test_a_route_of_one_host_is_not_reached_by_way_of_another(world: World, service: Service) -> None:
    world.publish(a_route(hosts=("h",)))
    gateway = await world.gateway()
    assert await heard(gateway, f"GET http://other/orders HTTP/1.1\r\n{GOOD}\r\n") == (404, "route_not_found")
    assert not service.calls


async def test_a_request_inside_a_body_stays_a_body(gateway: Running, world: World, service: Service) -> None:
    inner = f"GET /orders/inner HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n"
    head = f"POST /orders/outer HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\nContent-Length: {len(inner)}\r\n\r\n"
    assert (await gateway.raw((head + inner).encode())).count(b"HTTP/1.1 200 ") == 1
    assert [(call.line, call.body) for call in service.calls] == [("POST /outer HTTP/1.1", inner.encode())]


@pytest.mark.parametrize("count", [2, 3, 10])
async def test_what_came_before_a_malformed_request_is_answered_in_order(
    gateway: Running, world: World, service: Service, count: int
) -> None:
    lines = [f"GET /orders/{n} HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n" for n in range(count)]
    answer = await gateway.raw(("".join(lines) + "nonsense\r\n\r\n").encode(), answers=count + 1)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"] * count + [b"400"]
    assert [call.line for call in service.calls] == [f"GET /{n} HTTP/1.1" for n in range(count)]


async def test_the_body_of_a_refused_request_is_not_the_next_request(world: World, service: Service) -> None:
    world.publish(a_route(), a_route("open", auth_required=False))
    gateway = await world.gateway()
    inner = "GET /open HTTP/1.1\r\nHost: h\r\n\r\n"
    head = f"POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: {len(inner)}\r\n\r\n{inner}"
    answer = await gateway.raw(head.encode(), answers=2, seconds=0.5)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"401"]
    assert not service.calls
