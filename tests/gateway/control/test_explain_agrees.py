"""What explain says becomes of a request is what a gateway does with it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from anumate.lib.problem import Problem
from gateway.control.compile import Compiled
from gateway.control.explain import explain
from gateway.control.tokens import PatientTokens
from gateway.proxy.policies import Auth, Cors, Pair, Redirect, Rewrite, WebSockets
from gateway.proxy.table import RoutingTable
from registry.live.issuers import IssuerRecord, IssuerSection
from registry.live.keys import KeyRecord, make, secret_hash
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Running, World, a_route, gateway, service, world
from tests.gateway.proxy.test_tokens import PRIVATE, Jwks, issuer, jwks, token

__all__ = ["gateway", "jwks", "service", "world"]  # fixtures of the data plane's tests

OPEN: dict[str, Any] = {"auth_required": False}
ROUTES = (
    a_route("orders", id=1, **OPEN),
    a_route("shop", id=2, path="/", hosts=("shop.example", "*.deep.example"), **OPEN),
    a_route("six", id=3, path="/six", methods=("GET", "POST"), **OPEN),
    a_route("moved", id=4, path="/moved", targets=(), redirect=Redirect(308, path="/new")),
    a_route("keys", id=5, path="/keys"),
    a_route("tokens", id=6, path="/tokens", auth=Auth(methods=("jwt",))),
    a_route("pages", id=7, path="/pages", cors=Cors(origins=("https://app.example",)), **OPEN),
    a_route("asked", id=8, path="/asked", headers=(Pair("X-A", "1"),), query=(Pair("q", "a b"),), **OPEN),
    a_route("made", id=9, path="/x(.*)", path_type="regex", rewrite=Rewrite(path=r"/public/\1"), **OPEN),
    a_route("plain", id=10, path="/plain", websockets=WebSockets(enabled=False), **OPEN),
    a_route("exact", id=11, path="/Exact/", path_type="exact", **OPEN),
    a_route("either", id=12, path="/either", auth=Auth(methods=("key", "jwt"))),
    a_route("query", id=13, path="/query", auth=Auth(query_parameter="k")),
    a_route("more", id=14, path="/more", scopes=("gateway:read",)),
)
HANDSHAKE = (
    *(("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
TOKEN = ("Authorization", "Bearer a.b.c")
PREFLIGHT = (("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET"))
Asked = tuple[str, str, str, tuple[tuple[str, str], ...]]

HOSTS = """any.example Any.Example:8080 Shop.EXAMPLE:8080 shop.example. a.deep.example deep.example [::1] [::1]:8080 h:
user@h [::1 h:port h,i"""
PATHS = r"""/ /orders /orders/7 /nowhere /keys /tokens /tokens/1 /moved/a?b=c /Exact/ /exact/ /Exact orders *
/-/livez /-/readyz /-/metrics /-/other /-/ /- /%2d/livez
/orders?a=/six /orders/../six /orders/%2e%2e/six /orders%2f /%zz /o%72ders //orders /orders;v=1 /orders/\ /orders?a\b
/orders#part /orders#?q /orders?x#part /#/orders /orders? /orders?? /xa..b /x../secret /x%2E./s"""
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE")
FIELDS: tuple[tuple[tuple[str, str], ...], ...] = (
    PREFLIGHT,
    HANDSHAKE,
    HANDSHAKE[:3],
    *((("Via", via),) for via in ("1.1 anumate", "1.0 fred, 1.1 anumate", "1.1 anumated", "HTTP/1.1 anumate")),
    *((("Max-Forwards", hops),) for hops in ("0", "1", "none")),
    (("Content-Length", "1"), ("Transfer-Encoding", "chunked")),
)
ASKED: list[Asked] = [
    *(("GET", host, path, ()) for host in HOSTS.split() for path in ("/", "/orders/7")),
    *(("GET", host, "/orders", ()) for host in ("a b", "h ")),
    *(("GET", "h", path, ()) for path in (*PATHS.split(), "/orders?a b", "/a b", "/é")),
    *((method, "h", path, ()) for method in METHODS for path in ("/six", "/", "/-/livez", "/-/options", "/orders")),
    *(
        (method, "h", path, fields)
        for method in ("GET", "OPTIONS", "TRACE")
        for path in ("/orders", "/nowhere", "/", "/-/livez", "/pages", "/plain", "/moved")
        for fields in FIELDS
    ),
    *(("GET", "h", f"/asked?{query}", (("X-A", "1"),)) for query in ("q=a+b", "q=a%20b", "q=b", "q=b&q=a+b")),
    ("GET", "h", "/asked?q=a+b", (("X-A", "2"),)),
]


def some_requests(chance: random.Random, count: int) -> list[Asked]:
    """Put together from what the table above is made of."""
    pieces = ["/", "//", "orders", "six", "-", "..", ".", "%2e", "%2F", "%", "#", "?", "a", "x", ";", "Exact/", "livez"]
    hosts = ["h", "shop.example", "SHOP.example:1", "a.deep.example.", "[::1]", "h:80:80", "x.shop.example"]
    return [
        (
            chance.choice(["GET", "POST", "OPTIONS", "TRACE", "HEAD", "PUT"]),
            chance.choice(hosts),
            "/" + "".join(chance.choices(pieces, k=chance.randrange(5))),
            chance.choice([(), (), (), PREFLIGHT, (("Via", "1.1 anumate"),), (("X-A", "1"),)]),
        )
        for _ in range(count)
    ]


def explained(asked: Asked) -> Any:
    """Code of the refusal (of HEAD, its status), the route, or the status of the gateway's own answer."""
    method, host, target, headers = asked
    try:
        found = explain("default", method=method, host=host, target=target, headers=headers)
    except Problem as problem:
        return problem.status if method == "HEAD" else problem.code
    if found.code and method == "HEAD":
        return found.status
    if found.admission and found.admission.auth_required and found.admission.admitted is None:
        return "api_key_missing"  # nobody comes with one
    assert found.status in (None, 308) or found.route is None or found.code
    return found.code or found.route or found.status


async def answered(world: World, gateway: Running, asked: Asked) -> Any:
    method, host, target, headers = asked
    calls, routes = sum(len(each.calls) for each in world.services), gateway.app.recorder.tallies
    routes.clear()
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if method in ("HEAD", "OPTIONS"):
        lines.append("Connection: close")  # nothing else tells where an answer without body ends
    head, _, body = (await gateway.raw("\r\n".join([*lines, "", ""]).encode())).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status >= 400:
        return status if method == "HEAD" else msgspec.json.decode(body)["code"]
    served = sum(len(each.calls) for each in world.services) > calls
    return next(route for _, route, *_ in routes) if served or status == 308 else status


@pytest.fixture
def explaining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explain has the gateway's table, and nobody knows a host but the default tenant."""
    monkeypatch.setattr("gateway.control.explain.compile_table", lambda _: Compiled(RoutingTable(1, ROUTES), []))
    monkeypatch.setattr("gateway.control.explain.host_owner", lambda: lambda _: "default")
    monkeypatch.setattr("gateway.control.explain._destinations", lambda *_: ())


@pytest.mark.parametrize("requests", [ASKED, some_requests(random.Random(11), 300)], ids=["listed", "random"])
@pytest.mark.usefixtures("explaining")
async def test_explain_says_what_the_gateway_does(world: World, gateway: Running, requests: list[Asked]) -> None:
    world.publish(*ROUTES)
    await gateway.serves(world._revision)
    differ = [
        f"{asked}: {said} is said, {done} is done"
        for asked in requests
        if (said := explained(asked)) != (done := await answered(world, gateway, asked))
    ]
    assert not differ, "\n".join(differ)


def fields_with(keys: dict[str, str]) -> list[tuple[tuple[str, str], ...]]:
    """What proves who asks, and what does not."""
    key, other = keys["good"], keys["other"]
    return [
        *((("X-API-Key", each),) for each in (*keys.values(), "", "nonsense", key[:-1], key.split("_")[1])),
        *((("Authorization", f"{scheme}{key}"),) for scheme in ("Bearer ", "bearer  ", "Basic ", "Bearer")),
        *((("Authorization", said),) for said in ("Bearer", "Basic eA==")),
        (("X-API-Key", key), ("X-API-Key", key)),
        (("X-API-Key", key), ("Authorization", f"Bearer {other}")),
        (("X-API-Key", key), ("Authorization", "Basic eA==")),
        (("X-API-Key", key), TOKEN),
        (("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")),
    ]


@pytest.mark.usefixtures("explaining")
async def test_explain_judges_the_key_among_the_headers_as_the_gateway_does(
    world: World, gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "good": {},
        "other": {"tenant": "acme"},
        "late": {"expires_at": 1.0},
        "elsewhere": {"networks": ("10.0.0.0/8",)},
        "for pages": {"routes": ("pages",)},
        "weak": {"scopes": ("registry:read",)},
    }
    keys, records = {}, []
    for kind, fields in kinds.items():
        id, keys[kind] = make()
        said = {"tenant": "default", "scopes": ("gateway:invoke",), **fields}
        records.append(KeyRecord(id, kind, hash=secret_hash(PEPPER, keys[kind]), **said))
    world.publish_keys(*records, tenants=("default", "acme"))
    world.publish(*ROUTES)
    await gateway.serves(world._revision)
    await eventually(lambda: gateway.app.node.keys.tenant("acme") is not None, what="the keys")
    monkeypatch.setattr("gateway.control.callers.ring_for", lambda _: gateway.app.node.keys)
    monkeypatch.setattr("gateway.control.explain._rate_limits", lambda *_: [])
    key = keys["good"]
    asked: list[Asked] = [
        *(
            ("GET", "h", path, f)
            for path in ("/keys", "/either", "/query", "/more", "/orders")
            for f in fields_with(keys)
        ),
        *(("GET", "h", "/tokens", f) for f in fields_with(keys) if TOKEN not in f),
        *(("GET", "h", f"/query?{query}", ()) for query in (f"k={key}", "k=x", "k=", f"%6B={key}", f"k={key}&k={key}")),
        *(("GET", "h", f"/query?k={key}", f) for f in fields_with(keys)),
        ("GET", "h", f"/keys?k={key}", ()),
        ("GET", "h", "/keys", (("Authorization", f"Bearer x,Bearer {key}"),)),
    ]
    differ = [
        f"{each}: {said} is said, {done} is done"
        for each in asked
        if (said := explained(each)) != (done := await answered(world, gateway, each))
    ]
    assert not differ, "\n".join(differ)


def tokens_of_all_kinds() -> dict[str, str]:
    """By what is to be said of them."""
    soon = time.time() + 60
    others = ec.generate_private_key(ec.SECP256R1())
    return {
        "good": token(exp=soon, name="Ann"),
        "by a secret": token("HS256", iss="https://secret", exp=soon),
        "by a published key": token(iss="https://published", kid="one", exp=soon),
        "by no published key": token(iss="https://published", kid="two", exp=soon),
        "by somebody away": token(iss="https://away", kid="one", exp=soon),
        "with scopes": token(exp=soon, scope="gateway:read"),
        "expired": token(exp=soon - 600),
        "too early": token(exp=soon, nbf=soon + 600),
        "for others": token(aud="others", exp=soon),
        "of nobody": token(sub=None, exp=soon),
        "by a stranger": token(iss="https://stranger", exp=soon),
        "signed by others": token(key=others, exp=soon),
        "another algorithm": token("RS256", exp=soon),
        "too long": token(exp=soon, more="x" * 7000),
        "nonsense": "a.b.c",
        "empty": "",
    }


@pytest.mark.usefixtures("explaining")
async def test_explain_judges_a_token_as_the_gateway_does_and_in_the_same_words(
    world: World, gateway: Running, jwks: Jwks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jwks.add("one", PRIVATE["ES256"])
    records: tuple[IssuerRecord, ...] = (
        issuer(),
        issuer("HS256", name="secret", issuer="https://secret"),
        issuer(name="published", issuer="https://published", jwks_url=jwks.url),
        issuer(name="away", issuer="https://away", jwks_url="http://127.0.0.1:1/jwks"),
    )
    routes = (*ROUTES, a_route("login", id=20, path="/login", auth=Auth(("jwt",), issuers=("login",))))
    world._publish("issuers", msgspec.json.encode(IssuerSection(records)))
    world.publish(*routes)
    await gateway.serves(world._revision)
    await eventually(lambda: any(each.source.fetches and each.source.keys for each in gateway.app.tokens._all()))
    compiled = Compiled(RoutingTable(1, routes), [])
    monkeypatch.setattr("gateway.control.explain.compile_table", lambda _: compiled)
    monkeypatch.setattr("gateway.control.tokens.section", lambda: IssuerSection(records))
    monkeypatch.setattr("gateway.control.callers.ring_for", lambda _: gateway.app.node.keys)
    monkeypatch.setattr("gateway.control.explain._rate_limits", lambda *_: [])
    differ, accepted = [], set()
    for kind, presented in tokens_of_all_kinds().items():
        for path in ("/tokens", "/either", "/login", "/more", "/orders"):
            fields = (("Authorization", f"Bearer {presented}"),)
            asked = {"method": "GET", "host": "h", "target": path, "headers": fields}
            found = await asyncio.to_thread(explain, "default", **asked)
            admission = found.admission
            assert admission is not None
            said = (admission.code, admission.sentence) if admission.admitted is False else (None, "")
            answer = await gateway.raw(f"GET {path} HTTP/1.1\r\nHost: h\r\n{': '.join(*fields)}\r\n\r\n".encode())
            refused = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2]) if answer[9:10] != b"2" else {}
            if said != (done := (refused.get("code"), refused.get("detail", ""))):
                differ.append(f"{kind} {path}: {said} is said, {done} is done")
            if admission.admitted and path == "/tokens":
                accepted.add((kind, admission.consumer, admission.issuer))
            if presented:
                assert presented not in str(found)
                assert presented not in caplog.text
    assert not differ, "\n".join(differ)
    assert accepted == {
        ("good", "ann", "https://login"),
        ("with scopes", "ann", "https://login"),
        ("by a secret", "ann", "https://secret"),
        ("by a published key", "ann", "https://published"),
    }


async def test_explain_asks_an_issuer_as_seldom_as_a_worker_does_and_no_other(
    jwks: Jwks, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwks.add("one", PRIVATE["ES256"])
    other = await Jwks().start()
    records = (
        issuer(jwks_url=jwks.url),
        issuer(name="other", issuer="https://other", jwks_url=other.url),
    )
    monkeypatch.setattr("gateway.control.tokens.section", lambda: IssuerSection(records))
    patient, now = PatientTokens(), time.time()
    good, strange = token(kid="one", exp=now + 60), token(kid="two", exp=now + 60)
    for _ in range(3):
        assert (await asyncio.to_thread(patient.verify, "default", (), good, now)).subject == "ann"
        with pytest.raises(Problem):
            await asyncio.to_thread(patient.verify, "default", (), strange, now)
    assert (jwks.asked, other.asked) == (1, 0)
    await other.stop()


async def test_an_issuer_that_does_not_answer_keeps_nobody_waiting_who_needs_another(
    jwks: Jwks, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwks.add("one", PRIVATE["ES256"])
    asked, over = asyncio.Event(), asyncio.Event()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()
        writer.close()

    silent = await asyncio.start_server(never, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/"
    records = (issuer(tenant="evil", jwks_url=address), issuer(jwks_url=jwks.url))
    monkeypatch.setattr("gateway.control.tokens.section", lambda: IssuerSection(records))
    patient, now = PatientTokens(), time.time()
    good = token(kid="one", exp=now + 60)
    waits = asyncio.create_task(asyncio.to_thread(patient.verify, "evil", (), good, now))
    await asked.wait()
    assert (await asyncio.to_thread(patient.verify, "default", (), good, now)).subject == "ann"
    assert not waits.done()
    over.set()
    with pytest.raises(Problem):
        await waits
    silent.close()


@pytest.mark.usefixtures("explaining")
async def test_explain_knows_where_nobody_has_to_bring_a_key(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENV = dataclasses.replace(settings.ENV, api_key_required=False)
    await world.service()
    world.publish(*ROUTES)
    gateway = await world.gateway(api_key_required=False)
    await gateway.knows("orders", 1)
    await gateway.serves(world._revision)
    monkeypatch.setattr("gateway.control.callers.ring_for", lambda _: gateway.app.node.keys)
    paths = ("/keys", "/either", "/query", "/more", "/tokens", "/orders")
    asked: list[Asked] = [("GET", "h", path, ()) for path in paths]
    asked += [("GET", "h", "/keys", (("X-API-Key", "nonsense"),))]
    differ = [
        f"{each}: {said} is said, {done} is done"
        for each in asked
        if (said := explained(each)) != (done := await answered(world, gateway, each))
    ]
    assert not differ, "\n".join(differ)
