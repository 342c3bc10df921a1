"""What port 8090 does with a request before anybody else sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.db import connections

from anumate.front import for_pages_elsewhere, known_hosts_only, whole_bodies
from anumate.lib.cors import Cors
from tests.api import secret

LIMIT = 1000


class Seen:
    """An app that keeps what it is handed."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.body = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, more = scope, True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})
        await send({"type": "http.response.body", "body": b"seen"})

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scope["headers"])


class Pieces:
    """A body that comes in chunks, and how many of them were taken."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://testserver")


def code(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, body["code"]


class TestHosts:
    HOSTS = ("anumate.example", ".wild.example", "[::1]")

    @pytest.mark.parametrize("host", ["anumate.example", "Anumate.Example:8090", "a.wild.example", "[::1]:8090"])
    async def test_a_name_of_ours_is_served(self, host: str) -> None:
        async with client(known_hosts_only(Seen(), self.HOSTS)) as http:
            assert (await http.get("/v1/services", headers={"Host": host})).text == "seen"

    @pytest.mark.parametrize(
        "host", ["other.example", "wild.example.org", "anumate.example, other.example", "a b", "["]
    )
    @pytest.mark.parametrize("path", ["/v1/services", "/v1/services/register", "/admin/"])
    async def test_another_name_is_refused_in_one_line(self, host: str, path: str, caplog: Any) -> None:
        seen = Seen()
        async with client(known_hosts_only(seen, self.HOSTS)) as http:
            answer = await http.get(path, headers={"Host": host, "X-Request-ID": "ask-me"})
        assert code(answer) == (400, "malformed_request")
        assert seen.scope is None
        (line,) = [record for record in caplog.records if record.name == "anumate.front"]
        assert "ask-me" in line.getMessage()
        assert line.exc_info is None

    async def test_without_a_name_the_servers_own_address_counts(self) -> None:
        scope: Any = {"type": "http", "method": "GET", "path": "/", "headers": [], "server": ("::1", 8090)}
        seen, sent = Seen(), []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await known_hosts_only(seen, self.HOSTS)(scope, receive, send)
        await known_hosts_only(seen, self.HOSTS)({**scope, "server": ("192.0.2.1", 8090)}, receive, send)
        assert [message.get("status") for message in sent] == [200, None, 400, None]


class TestPagesElsewhere:
    SHOP = "https://shop.example"
    ASKS = {"Origin": SHOP, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-api-key"}

    async def test_a_listed_origin_may_ask_and_read(self) -> None:
        seen = Seen()
        async with client(for_pages_elsewhere(seen, Cors([self.SHOP + "/"]))) as http:
            preflight = await http.options("/v1/routes/a", headers=self.ASKS)
            assert (preflight.status_code, seen.scope) == (204, None)
            assert preflight.headers.get_list("access-control-allow-origin") == [self.SHOP]
            assert preflight.headers["access-control-allow-headers"] == "x-api-key"
            assert "PUT" in preflight.headers["access-control-allow-methods"]
            answer = await http.get("/v1/routes", headers={"Origin": self.SHOP})
        assert answer.headers["access-control-allow-origin"] == self.SHOP
        assert answer.headers.get_list("vary") == ["Accept", "Origin"]
        assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", SHOP + ".evil.example", "http://shop.example", ""]
    )
    async def test_another_origin_is_allowed_nothing_and_caches_are_told_that_it_matters(self, origin: str) -> None:
        async with client(for_pages_elsewhere(Seen(), Cors([self.SHOP]))) as http:
            for answer in (
                await http.get("/v1/routes", headers={"Origin": origin} if origin else {}),
                await http.options("/v1/routes", headers={**self.ASKS, "Origin": origin}),
            ):
                assert not [name for name in answer.headers if name.startswith("access-control-")]
                assert "Origin" in answer.headers["vary"]

    async def test_any_origin_means_no_credentials(self) -> None:
        async with client(for_pages_elsewhere(Seen(), Cors(["*"]))) as http:
            answer = await http.get("/", headers={"Origin": self.SHOP, "Cookie": "sessionid=a"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers

    async def test_without_origins_nothing_is_added(self) -> None:
        seen = Seen()
        async with client(for_pages_elsewhere(seen, Cors([]))) as http:
            answer = await http.options("/", headers=self.ASKS)
        assert seen.scope["method"] == "OPTIONS"
        assert answer.headers["vary"] == "Accept"


class TestBodies:
    async def test_a_body_in_chunks_is_handed_on_whole_and_with_its_length(self) -> None:
        seen = Seen()
        async with client(whole_bodies(seen, LIMIT)) as http:
            assert (await http.post("/", content=Pieces(b"ab", b"", b"cde"))).text == "seen"
        assert (seen.body, seen.headers[b"content-length"]) == (b"abcde", b"5")
        assert b"transfer-encoding" not in seen.headers

    async def test_a_body_of_the_limit_passes_and_one_byte_more_does_not(self) -> None:
        seen = Seen()
        async with client(whole_bodies(seen, LIMIT)) as http:
            assert (await http.post("/", content=Pieces(b"a" * LIMIT))).status_code == 200
            assert code(await http.post("/", content=Pieces(b"a" * LIMIT, b"b"))) == (413, "payload_too_large")
            assert code(await http.post("/", content=b"a" * (LIMIT + 1))) == (413, "payload_too_large")
        assert len(seen.body) == LIMIT

    async def test_no_more_of_a_body_is_taken_than_shows_that_it_is_too_large(self) -> None:
        pieces = Pieces(*[b"a" * LIMIT] * 50)
        async with client(whole_bodies(Seen(), LIMIT)) as http:
            assert code(await http.post("/", content=pieces)) == (413, "payload_too_large")
        assert pieces.taken == 2

    async def test_nobody_is_answered_who_hung_up_in_the_middle_of_a_body(self) -> None:
        seen, messages, sent = Seen(), [{"type": "http.disconnect"}], []

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await whole_bodies(seen, LIMIT)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
        assert (seen.scope, sent) == (None, [])

    @pytest.mark.django_db(transaction=True)
    def test_an_api_reads_a_body_that_comes_in_chunks(self) -> None:
        key = secret()

        async def post() -> httpx.Response:
            async with client(whole_bodies(get_asgi_application(), LIMIT)) as http:
                headers = {"X-API-Key": key, "Content-Type": "application/json"}
                return await http.post(
                    "/v1/routes", content=Pieces(b'{"name": "a",', b' "service": "b"}'), headers=headers
                )

        try:
            answer = asyncio.run(post())
        finally:
            connections.close_all()
        assert answer.status_code == 201, answer.text


async def never() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


@pytest.mark.parametrize("declared", [{}, {"Content-Length": "100"}])
async def test_a_body_that_does_not_come_is_waited_for_only_so_long(declared: dict[str, str]) -> None:
    seen = Seen()
    async with client(whole_bodies(seen, LIMIT, seconds=0.01)) as http:
        answer = await http.post("/v1/routes", content=never(), headers=declared)
    assert code(answer) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert seen.scope is None
