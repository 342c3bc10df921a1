"""The same request, sent to a service directly and through the gateway, differs only in what is declared here."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

from tests.gateway.proxy.conftest import Call, Service, World, a_route

ADDED_TO_REQUESTS = {
    *("via", "x-request-id", "traceparent", "x-consumer-id", "x-consumer-name", "x-consumer-tenant"),
    *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"),
}
TAKEN_FROM_REQUESTS = {"x-api-key", "connection", "keep-alive", "te", "x-hop", "expect", "forwarded", "x-real-ip"}
ADDED_TO_ANSWERS = {"via", "x-request-id"}
TAKEN_FROM_ANSWERS = {"connection", "keep-alive", "x-hop", "trailer"}
"""docs/protocols.md says the same in words; and that an empty query loses its question mark."""

FRAMING = {"content-length", "transfer-encoding"}
"""The same body, but each side has its own."""
TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^`|~"
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
PATHS = VISIBLE.translate(str.maketrans("", "", '\\%?#"<>^`{|}/.'))


class Said(NamedTuple):
    """A request as a service got it, or an answer as a client did."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes

    def but(self, names: set[str]) -> Said:
        return self._replace(fields=sorted(field for field in self.fields if field[0] not in names | FRAMING))


def some_request(chance: random.Random) -> tuple[str, list[tuple[str, str]], bytes, bool]:
    """Request line without version, fields, body, and whether that is chunked."""
    method = chance.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "REPORT"])
    segments = ["".join(chance.choices(PATHS, k=chance.randint(1, 8))) for _ in range(chance.randint(0, 4))]
    segments += chance.choice([[], ["%C3%A4%20b"], ["a%3Fb"], [""], ["..;x"]])[:1]
    target = "/orders" + "".join("/" + segment for segment in segments if segment != "..;x")
    if chance.random() < 0.5:
        target += "?" + "".join(chance.choices(VISIBLE.replace("#", ""), k=chance.randint(1, 30)))
    fields = [
        ("x-" + "".join(chance.choices(TOKEN, k=chance.randint(1, 12))), _value(chance))
        for _ in range(chance.randint(0, 8))
    ]
    if chance.random() < 0.3:
        fields += [("Connection", "keep-alive, X-Hop"), ("X-Hop", "gone"), ("TE", "trailers")]
    if chance.random() < 0.3:
        fields += [("Cookie", "a=b; c=d"), ("Accept", "*/*"), ("Accept", "text/plain")]
    has_body = method in ("POST", "PUT", "PATCH", "REPORT")
    body = chance.randbytes(chance.choice([0, 1, 100, 70_000])) if has_body else b""
    return f"{method} {target}", fields, body, bool(body) and chance.random() < 0.5


def _value(chance: random.Random) -> str:
    return "".join(chance.choices(VISIBLE + "  \t", k=chance.randint(0, 40))).strip(" \t")


def some_answer(chance: random.Random) -> bytes:
    status = chance.choice([200, 201, 204, 206, 301, 304, 400, 404, 418, 429, 500, 503, 599])
    fields = [f"x-{number}: {_value(chance)}" for number in range(chance.randint(0, 5))]
    fields += chance.choice([[], ["set-cookie: a=b", "set-cookie: c=d"], ["connection: x-hop", "x-hop: gone"]])
    if status in (204, 304):
        return "\r\n".join([f"HTTP/1.1 {status} Any", *fields, "", ""]).encode()
    body = chance.randbytes(chance.choice([0, 1, 5000, 80_000]))
    if chance.random() < 0.5:
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        head = "\r\n".join([f"HTTP/1.1 {status} Any", *fields, "transfer-encoding: chunked", "", ""])
        return head.encode() + chunk + b"0\r\n\r\n"
    head = "\r\n".join([f"HTTP/1.1 {status} Any", *fields, f"content-length: {len(body)}", "", ""])
    return head.encode() + body


async def ask(port: int, line: str, fields: list[tuple[str, str]], body: bytes, *, chunked: bool) -> Said:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = ["transfer-encoding: chunked"] if chunked else [f"content-length: {len(body)}"] if body else []
    head = [f"{line} HTTP/1.1", "Host: shop.example", *(f"{name}: {value}" for name, value in fields), *framing]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    half = len(body) // 2
    pieces = [piece for piece in (body[:half], body[half:]) if piece]
    for piece in pieces:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    call = Call(await reader.readuntil(b"\r\n\r\n"), reader, writer)
    found = [(name.lower(), value) for name, value in (each.split(":", 1) for each in _lines(call))]
    call.fields = [(name, value.strip()) for name, value in found]
    if not line.startswith("HEAD "):
        await call.read_body()
    writer.close()
    return Said(call.line.split(" ")[1], list(call.fields), call.body)  # type: ignore[arg-type]


def _lines(call: Call) -> list[str]:
    return call.head.decode("latin-1").split("\r\n")[1:-2]


def seen_by(service: Service) -> Said:
    call = service.calls[-1]
    fields = [(name.lower(), value.strip()) for name, value in (each.split(":", 1) for each in _lines(call))]
    return Said(call.line, fields, call.body)


async def test_only_what_is_declared_differs(world: World) -> None:
    service = await world.service()
    world.publish(a_route(strip_prefix=False, retries=0))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    gateway.app.guard.force({})
    chance = random.Random(2024)
    for number in range(150):
        line, fields, body, chunked = some_request(chance)
        answer = some_answer(chance)
        service.answers(answer)
        if line.startswith("HEAD "):
            service.answers(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        gateway.app.guard._breakers.clear()
        gateway.app.balancer._outliers.clear()
        direct = await ask(service.port, line, fields, body, chunked=chunked)
        plain = seen_by(service)
        through = await ask(gateway.port, line, [*fields, ("X-API-Key", world.key)], body, chunked=chunked)
        assert seen_by(service).but(ADDED_TO_REQUESTS) == plain.but(TAKEN_FROM_REQUESTS), (number, line)
        assert through.but(ADDED_TO_ANSWERS) == direct.but(TAKEN_FROM_ANSWERS), (number, line)
