"""Tokens as a way in: every algorithm, every way to cheat, and issuers that are away."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from anumate.lib.problem import Problem
from anumate.lib.sealing import Unsealable, seal, unseal
from gateway.proxy import jwks as jwks_module
from gateway.proxy.auth import consumer_lines
from gateway.proxy.jwks import FIRST_SECONDS, KeySource
from gateway.proxy.policies import Auth
from gateway.proxy.tokens import Tokens
from registry.live import addresses
from registry.live.issuers import SEALING_LABEL, SYMMETRIC, IssuerRecord, IssuerSection
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, World, a_route

NOW = 1_800_000_000.0
SECRET = "a secret of sixty-four bytes, which is what HS512 asks of a key."
RSA = rsa.generate_private_key(65537, 2048)
PRIVATE: dict[str, Any] = {
    **{name: RSA for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    **{name: SECRET for name in SYMMETRIC},
}


def pem(private: Any) -> str:
    text: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def issuer(algorithm: str = "ES256", **fields: Any) -> IssuerRecord:
    if not fields.get("jwks_url"):
        if algorithm in SYMMETRIC:
            fields.setdefault("sealed_secret", seal(PEPPER, SEALING_LABEL, SECRET))
        else:
            fields.setdefault("keys", pem(PRIVATE[algorithm]))
    plain = {"tenant": "default", "name": "login", "issuer": "https://login", "audiences": ("us",)}
    return IssuerRecord(**{**plain, "algorithms": (algorithm,), **fields})  # type: ignore[arg-type]


def tokens(*records: IssuerRecord) -> Tokens:
    found = Tokens(PEPPER)
    found.take(msgspec.json.encode(IssuerSection(records)))
    return found


def token(algorithm: str = "ES256", *, key: Any = None, kid: str | None = None, **claims: Any) -> str:
    said = {"iss": "https://login", "aud": "us", "sub": "ann", "exp": NOW + 600, **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key or PRIVATE[algorithm], algorithm, headers={"kid": kid} if kid else None)


def code(known: Tokens, presented: str, tenant: str = "default", allowed: tuple[str, ...] = ()) -> str:
    with pytest.raises(Problem) as raised:
        known.verify(tenant, allowed, presented, NOW)
    assert raised.value.headers["WWW-Authenticate"].startswith("Bearer ")
    assert 'error="invalid_token"' in raised.value.headers["WWW-Authenticate"]
    return raised.value.code


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_every_algorithm_is_verified_and_another_signature_refused(algorithm: str) -> None:
    known = tokens(issuer(algorithm))
    good = token(algorithm)
    assert known.verify("default", (), good, NOW).subject == "ann"
    head, body, signature = good.split(".")
    assert code(known, f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}") == "api_key_invalid"


def test_a_public_key_is_no_secret() -> None:
    """RFC 8725 §2.1: signed with HS256, and the issuer's public key as the secret."""
    head = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}')
    body = token("RS256").split(".")[1].encode()
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(head + b"." + body, pem(RSA).encode())
    forged = b".".join((head, body, jwt.utils.base64url_encode(signature))).decode()
    assert code(tokens(issuer("RS256")), forged) == "api_key_invalid"


def test_a_token_without_a_signature_is_refused() -> None:
    unsigned = jwt.encode({"iss": "https://login", "aud": "us", "sub": "ann", "exp": NOW + 9}, None, "none")
    assert code(tokens(issuer()), unsigned) == "api_key_invalid"


def test_an_issuer_that_mixes_secrets_and_public_keys_is_left_out() -> None:
    assert code(tokens(issuer("RS256", algorithms=("RS256", "HS256"))), token("RS256")) == "api_key_invalid"


@pytest.mark.parametrize(
    ("claims", "wanted"),
    [
        ({"aud": "others"}, "api_key_invalid"),
        ({"aud": None}, "api_key_invalid"),
        ({"iss": "https://other"}, "api_key_invalid"),
        ({"iss": None}, "api_key_invalid"),
        ({"exp": None}, "api_key_invalid"),
        ({"exp": "soon"}, "api_key_invalid"),
        ({"sub": None}, "api_key_invalid"),
        ({"exp": NOW - 60}, "api_key_expired"),
        ({"nbf": NOW + 61}, "api_key_invalid"),
        ({"iat": NOW + 61}, "api_key_invalid"),
    ],
)
def test_a_token_with_wrong_claims_is_refused(claims: dict[str, Any], wanted: str) -> None:
    assert code(tokens(issuer()), token(**claims)) == wanted


def written(claims: str, header: str = '{"alg":"HS256"}') -> str:
    """A well signed token of these very words."""
    parts = [urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, claims)]
    proof = hmac.digest(SECRET.encode(), b".".join(parts), "sha256")
    return b".".join((*parts, urlsafe_b64encode(proof).rstrip(b"="))).decode()


PLAIN = '"iss":"https://login","aud":"us"'


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "1e400",
            "-1e400",
            "NaN",
            "Infinity",
            "-Infinity",
            "1" + "0" * 400,
            "1" + "0" * 4400,
            "1e300",
            "253402300800",
        ),
        *("-1", "-0.5", "true", "false", '"1800000000"', "[1800000000]", "{}"),
    ],
)
def test_a_time_that_is_none_is_refused(name: str, value: str) -> None:
    times = {"exp": "1800000600", name: value}
    said = ",".join(f'"{each}":{at}' for each, at in times.items())
    assert code(tokens(issuer("HS256")), written(f'{{{PLAIN},"sub":"ann",{said}}}')) == "api_key_invalid"


@pytest.mark.parametrize(
    "claims",
    [
        *(
            '"sub":"\\ud800"',
            '"sub":"a\\udc00b"',
            '"sub":"ann","name":"\\udfff"',
            '"sub":7',
            '"sub":["ann"]',
            '"sub":{}',
        ),
        *('"sub":null', '"sub":""', '"sub":true', '"sub":"ann","iss":"\\ud800"', '"sub":"ann","iss":["https://login"]'),
        *('"sub":"ann","aud":["\\ud800"]', '"sub":"ann","aud":' + "[" * 2500 + "]" * 2500, f'"sub":"{"a" * 256}"'),
        '"sub":"ann","x":' + "[" * 990 + "]" * 990 + ',"aud":7',
    ],
)
def test_claims_of_a_wrong_kind_are_refused(claims: str) -> None:
    presented = written(f'{{{PLAIN},"exp":1800000600,{claims}}}')
    assert code(tokens(issuer("HS256")), presented) == "api_key_invalid"


@pytest.mark.parametrize(
    "header",
    [
        *('{"alg":"HS256","crit":["exp"]}', '{"alg":"HS256","crit":["x"],"x":1}', '{"alg":"HS256","crit":[]}'),
        *('{"alg":"HS256","kid":7}', '{"alg":"HS256","kid":["a"]}', '{"alg":["HS256"]}', '{"alg":{}}', '{"alg":null}'),
        *('{"alg":"\\ud800"}', '{"alg":"HS256","b64":false}', "[]", '"HS256"', "null", "{}", "[" * 2900, ""),
    ],
)
def test_a_header_of_a_wrong_kind_is_refused(header: str) -> None:
    presented = written(f'{{{PLAIN},"exp":1800000600,"sub":"ann"}}', header)
    assert code(tokens(issuer("HS256")), presented) == "api_key_invalid"


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_nesting_that_only_just_can_be_read_is_no_mistake_of_the_gateway(depth: int) -> None:
    presented = written(f'{{{PLAIN},"exp":1800000600,"sub":"ann","x":{"[" * depth}{"]" * depth}}}')
    with contextlib.suppress(Problem):
        tokens(issuer("HS256")).verify("default", (), presented, NOW)


@pytest.mark.parametrize("name", ["a\r\nX-Admin: 1", "a\0b", "änn €", "\x7f\x85", "a%0d", '"', " a "])
def test_what_a_token_says_makes_no_field_of_its_own(name: str) -> None:
    known = tokens(issuer("HS256")).verify("default", (), token("HS256", sub=name, name=name), NOW)
    lines = consumer_lines(known).splitlines(keepends=True)
    assert len(lines) == 4
    for line in lines:
        assert re.fullmatch(rb"[a-z-]+: [!#$&'()*+,./:;=?@\[\]_~%0-9A-Za-z -]*\r\n", line)
        assert line.isascii()
    shown = lines[0].partition(b": ")[2]
    assert unquote(shown.removesuffix(b"\r\n").decode()) == name


@pytest.mark.parametrize("claims", [{"exp": NOW - 59}, {"nbf": NOW + 60}, {"iat": NOW + 60}, {"aud": ["x", "us"]}])
def test_clocks_may_differ_a_little(claims: dict[str, Any]) -> None:
    assert tokens(issuer()).verify("default", (), token(**claims), NOW).subject == "ann"


def test_a_remembered_token_expires_all_the_same() -> None:
    known, presented = tokens(issuer()), token()
    known.verify("default", (), presented, NOW)
    with pytest.raises(Problem) as raised:
        known.verify("default", (), presented, NOW + 660)
    assert raised.value.code == "api_key_expired"


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 9000, "..", "é.é.é"])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert code(tokens(issuer()), text) == "api_key_invalid"


def test_issuers_of_two_tenants_with_one_name_are_two() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    known = tokens(issuer(), issuer(tenant="acme", keys=pem(other)))
    ours, theirs = token(), token(key=other)
    assert known.verify("default", (), ours, NOW).tenant == "default"
    assert known.verify("acme", (), theirs, NOW).tenant == "acme"
    assert code(known, theirs) == "api_key_invalid"
    assert code(known, ours, tenant="acme") == "api_key_invalid"


def test_a_route_may_believe_some_issuers_only() -> None:
    known, presented = tokens(issuer()), token()
    known.verify("default", ("login",), presented, NOW)
    assert code(known, presented, allowed=("another",)) == "api_key_invalid"


def test_scopes_come_from_the_token_but_never_admin() -> None:
    known = tokens(issuer(grants_invoke=False))
    assert known.verify("default", (), token(scope="a b admin"), NOW).scopes == ("a", "b")
    assert known.verify("default", (), token(scp=["a", 7]), NOW).scopes == ("a",)


def test_a_sealed_secret_opens_only_with_the_same_secret_and_label() -> None:
    sealed = seal("pepper", "label", "a secret")
    assert unseal("pepper", "label", sealed) == "a secret"
    for secret, label, text in (("other", "label", sealed), ("pepper", "other", sealed), ("pepper", "label", "x")):
        with pytest.raises(Unsealable):
            unseal(secret, label, text)


class Jwks:
    """An issuer's JWKS address on loopback."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0

    def add(self, kid: str, private: Any) -> None:
        document = jwt.algorithms.ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        self.keys.append({**document, "kid": kid, "use": "sig", "alg": "ES256"})

    async def start(self) -> Jwks:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/jwks"
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": self.keys}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()


@pytest.fixture
async def jwks() -> AsyncIterator[Jwks]:
    server = await Jwks().start()
    yield server
    await server.stop()


async def test_what_was_verified_is_verified_anew_only_when_the_issuers_keys_have_become_others(jwks: Jwks) -> None:
    jwks.add("one", PRIVATE["ES256"])
    source = KeySource(issuer(jwks_url=jwks.url), lambda: 0.0)
    assert await source.refresh()
    assert not await source.refresh()
    jwks.add("two", PRIVATE["ES256"])
    assert await source.refresh()
    await jwks.stop()
    assert not await source.refresh()


async def test_an_unknown_key_asks_its_issuer_once_in_ten_seconds_and_an_outage_changes_nothing(jwks: Jwks) -> None:
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    jwks.add("one", first)
    now = 1000.0
    known = Tokens(PEPPER, lambda: now)
    known.take(msgspec.json.encode(IssuerSection((issuer(jwks_url=jwks.url),))))
    (source,) = (each.source for each in known._all())
    await source.refresh()
    known.verify("default", (), token(key=first, kid="one"), NOW)
    jwks.add("two", second)
    now += 9
    assert code(known, token(key=second, kid="two")) == "api_key_invalid"
    assert not source.due
    now += 1
    for _ in range(3):
        assert code(known, token(key=second, kid="two")) == "api_key_invalid"
    assert source.due
    await source.refresh()
    assert not source.due
    assert jwks.asked == 2
    known.verify("default", (), token(key=second, kid="two"), NOW)
    await jwks.stop()
    await source.refresh()
    known.verify("default", (), token(key=first, kid="one", sub="bob"), NOW)


def test_before_an_issuers_keys_were_ever_there_nobody_is_called_a_liar() -> None:
    with pytest.raises(Problem) as raised:
        tokens(issuer(jwks_url="http://127.0.0.1:1/jwks")).verify("default", (), token(), NOW)
    assert (raised.value.code, raised.value.headers["Retry-After"]) == ("unavailable", "1")


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal"])
async def test_keys_are_fetched_from_no_metadata_service(host: str) -> None:
    known = tokens(issuer(jwks_url=f"http://{host}/jwks"))
    (source,) = (each.source for each in known._all())
    await source.refresh()
    assert not source.keys


PACKED = gzip.compress(b" " * 50_000_000)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 600000\r\n\r\n" + b" " * 600_000, "more than 524288 bytes"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + json.dumps({"keys": [{}] * 101}).encode(), "100 keys"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "no JWKS document"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"[" * 400_000, "no JWKS document"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: gzip\r\n\r\n" + PACKED, "decode"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\xff\xfe", "decode"),
        (b"", "disconnected"),
    ],
)
async def test_what_is_no_set_of_keys_leaves_the_last_good_ones(
    answer: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    known = tokens(issuer(jwks_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"))
    (source,) = (each.source for each in known._all())
    source.keys = before = {"one": (PRIVATE["ES256"].public_key(), "ES256")}
    await source.refresh()
    assert source.keys is before
    assert why in caplog.text
    server.close()


async def test_an_issuer_that_keeps_silent_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jwks_module, "FETCH_SECONDS", 0.1)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        while await reader.read(1024):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    known = tokens(issuer(jwks_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"))
    (source,) = (each.source for each in known._all())
    await source.refresh()
    assert not source.keys
    assert "cannot be fetched" in caplog.text
    await asyncio.wait_for(gone.wait(), 5)
    server.close()


@pytest.mark.parametrize(
    "odd",
    [
        *(
            {},
            {"kty": 7},
            {"kty": []},
            {"kty": "RSA"},
            {"kty": "RSA", "n": 5, "e": None},
            {"kty": "RSA", "n": "", "e": ""},
        ),
        *({"kty": "EC", "crv": []}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "OKP", "crv": 5}),
        *(
            {"kty": "RSA", "n": "\u00e9", "e": "AQAB"},
            {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
            {"kty": "EC", "alg": []},
        ),
        *({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": {}}, {"kty": "RSA", "n": "AQAB", "e": "AQAB", "oth": [{}]}),
        *([], 7, None, {"use": []}, {"kty": "EC", "crv": "P-256", "x": ["a"], "y": {}}),
    ],
)
def test_an_odd_key_spoils_no_others(odd: Any) -> None:
    good = json.loads(ECAlgorithm.to_jwk(PRIVATE["ES256"].public_key()))
    assert "one" in jwks_module.read_keys(json.dumps({"keys": [odd, {**good, "kid": "one"}]}))


async def test_keys_are_fetched_from_whichever_address_of_a_host_answers(
    jwks: Jwks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(host: str) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    monkeypatch.setattr(addresses, "resolve", resolve)
    jwks.add("one", PRIVATE["ES256"])
    known = tokens(issuer(jwks_url=jwks.url.replace("127.0.0.1", "login.example")))
    (source,) = (each.source for each in known._all())
    await source.refresh()
    assert set(source.keys) == {"one"}


async def test_workers_that_start_together_do_not_ask_together(jwks: Jwks) -> None:
    now = 1000.0
    sources = [KeySource(issuer(jwks_url=jwks.url), lambda: now) for _ in range(50)]
    assert sum(source.due for source in sources) < 10
    sources[0].want()
    assert sources[0].due
    now += FIRST_SECONDS
    assert all(source.due for source in sources)


async def test_a_token_opens_a_route_and_tells_the_service_who_comes(world: World, jwks: Jwks) -> None:
    jwks.add("one", PRIVATE["ES256"])
    world.publish(a_route(auth=Auth(methods=("jwt",))), a_route("strict", scopes=("orders:read",), auth=Auth(("jwt",))))
    world._publish("issuers", msgspec.json.encode(IssuerSection((issuer(jwks_url=jwks.url),))))
    service = await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    await eventually(lambda: any(each.source.keys for each in gateway.app.tokens._all()), what="the keys to come")
    presented = token(kid="one", sub="änn/1", name="Ann", exp=time.time() + 60)

    async def ask(path: str, *lines: str) -> bytes:
        return await gateway.raw("\r\n".join((f"GET {path} HTTP/1.1", "Host: h", *lines, "", "")).encode())

    bearer = f"Authorization: Bearer {presented}"
    assert (await ask("/orders", bearer, "X-Consumer-Id: root", "X_Consumer_Id: root")).startswith(b"HTTP/1.1 200 ")
    (call,) = service.calls
    assert call.one("x-consumer-id") == "%C3%A4nn/1"
    assert (call.one("x-consumer-name"), call.one("x-consumer-issuer")) == ("Ann", "https://login")
    assert (call.one("x-consumer-tenant"), call.one("authorization")) == ("default", f"Bearer {presented}")
    assert not call.all("x_consumer_id")
    nobody = await ask("/orders")
    assert b'"code":"api_key_missing"' in nobody
    assert b'www-authenticate: Bearer realm="anumate"\r\n' in nobody
    assert b'error="invalid_token"' in await ask("/orders", "Authorization: Bearer nonsense")
    assert b'"code":"scope_missing"' in await ask("/strict", bearer)
    assert b'"code":"api_key_missing"' in await ask("/orders", f"X-API-Key: {world.key}")


async def test_a_route_may_take_keys_and_tokens_but_not_both_at_once(world: World) -> None:
    world.publish(a_route(auth=Auth(methods=("key", "jwt"))))
    world._publish("issuers", msgspec.json.encode(IssuerSection((issuer("HS256"),))))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    await eventually(gateway.app.tokens._all, what="the issuer")
    bearer = {"Authorization": f"Bearer {token('HS256', exp=time.time() + 60)}"}
    assert (await gateway.get()).status_code == 200
    assert (await gateway.get(headers=bearer)).json()["code"] == "api_key_invalid"
    del gateway.client.headers["X-API-Key"]
    assert (await gateway.get(headers=bearer)).status_code == 200
    assert (await gateway.get(headers={"Authorization": f"Bearer {world.key}"})).status_code == 200
