"""The short way, from parser callback to parser callback, and the long one say the same."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

from gateway.proxy.direct import Steps
from gateway.proxy.policies import Auth, Cors, HeaderEdits, Limits, Pair, Redirect, Rewrite
from gateway.proxy.relay import Client
from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import Running, World, a_route

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
