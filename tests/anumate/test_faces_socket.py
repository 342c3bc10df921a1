"""`/ws/live/` as a browser meets it: a session cookie, an origin, a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from anumate.faces import consumers
from anumate.faces.routing import websocket
from anumate.lib.env import Env
from anumate.lib.redis import connect_async
from registry.live.instances import Document, Fact, Key
from registry.live.node import Node, set_current
from registry.live.store import SyncStore
from registry.models import Member, Tenant

pytestmark = pytest.mark.django_db(transaction=True)

OURS = "http://localhost:8090"
SECONDS = 5


@pytest.fixture
async def node(store: redis.Redis, redis_url: str) -> AsyncIterator[Node]:
    live = SyncStore(store)
    for tenant in ("acme", "other"):
        live.register(Key(tenant, f"{tenant}-orders", "a"), Document())
    node = Node(Env(redis_url=redis_url), settings.API_KEY_PEPPER)
    await node.start()
    set_current(node)
    yield node
    set_current(None)
    await node.stop()


@pytest.fixture
def browser() -> Client:
    return Client()


@pytest.fixture
def maria() -> User:
    user = User.objects.create_user("maria", is_staff=True)
    tenant = Tenant.objects.create(name="acme")
    Tenant.objects.create(name="other")
    Member.objects.create(tenant=tenant, user=user)
    return user


class Page:
    """The browser's end of a socket."""

    def __init__(self, session: str = "", *, path: str = "/ws/live/", tenant: str = "", origin: str = OURS) -> None:
        self.headers = [(b"host", b"localhost:8090"), (b"origin", origin.encode())]
        if session:
            self.headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={session}".encode()))
        query = f"tenant={tenant}".encode()
        self.scope = {"type": "websocket", "path": path, "query_string": query, "headers": self.headers}

    async def open(self) -> bool:
        """Whether the server took the connection."""
        self.line = ApplicationCommunicator(websocket, self.scope)
        await self.line.send_input({"type": "websocket.connect"})
        return (await self.line.receive_output(SECONDS))["type"] == "websocket.accept"

    async def frame(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.line.receive_output(SECONDS))["text"])
        return found

    async def closed(self) -> int:
        """The code of the close; frames before it are passed over."""
        while (message := await self.line.receive_output(SECONDS))["type"] != "websocket.close":
            pass
        await self.leave()
        return int(message["code"])

    async def leave(self) -> None:
        await self.line.send_input({"type": "websocket.disconnect", "code": 1001})
        await self.line.wait(SECONDS)


async def sign_in(browser: Client, user: User) -> str:
    await sync_to_async(browser.force_login)(user)
    return browser.cookies[settings.SESSION_COOKIE_NAME].value


async def test_a_member_sees_their_own_tenant_and_what_changes_there(
    node: Node, store: redis.Redis, browser: Client, maria: User
) -> None:
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    snapshot = await page.frame()
    assert (snapshot["type"], snapshot["tenant"]) == ("snapshot", "acme")
    assert [each["name"] for each in snapshot["services"]] == ["acme-orders"]

    fact = Fact("unhealthy", "Connection refused.", 5.0, "checks")
    SyncStore(store).put_fact(Key("other", "other-orders", "a"), "probe", fact)
    SyncStore(store).put_fact(Key("acme", "acme-orders", "a"), "probe", fact)
    while "services" not in (change := await page.frame()):
        assert "other" not in json.dumps(change)
    assert [(each["name"], each["status"]) for each in change["services"]] == [("acme-orders", "down")]
    await page.leave()


async def test_another_tenant_is_not_shown(node: Node, browser: Client, maria: User) -> None:
    page = Page(await sign_in(browser, maria), tenant="other")
    assert await page.open()
    assert await page.closed() == consumers.NOT_ALLOWED


async def test_who_is_not_signed_in_is_told_so(node: Node, maria: User) -> None:
    page = Page()
    assert await page.open()
    assert await page.closed() == consumers.SIGNED_OUT


async def test_who_is_not_staff_sees_nothing(node: Node, browser: Client, maria: User) -> None:
    maria.is_staff = False
    await maria.asave()
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    assert await page.closed() == consumers.NOT_ALLOWED


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "localhost:8090"),
        ("http://localhost:3000", "localhost:8090"),
        ("", "localhost:8090"),
        ("null", "localhost:8090"),
        ("http://rebound.example", "rebound.example"),
    ],
)
async def test_a_page_of_another_origin_cannot_open_it(
    node: Node, browser: Client, maria: User, origin: str, host: str
) -> None:
    page = Page(await sign_in(browser, maria), origin=origin)
    page.headers[0] = (b"host", host.encode())
    assert not await page.open()


async def test_signing_out_ends_every_open_page_at_once(node: Node, browser: Client, maria: User) -> None:
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    await page.frame()
    await page.frame()  # the second one comes a beat later, when the page listens for a goodbye
    await sync_to_async(browser.logout)()
    assert await page.closed() == consumers.SIGNED_OUT


async def test_who_is_no_longer_a_member_is_shown_out(
    node: Node, browser: Client, maria: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "PING_SECONDS", 0.05)
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    while (await page.frame())["type"] != "ping":
        pass
    await Member.objects.all().adelete()
    assert await page.closed() == consumers.NOT_ALLOWED


async def test_a_process_that_follows_nothing_says_so(browser: Client, maria: User) -> None:
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    assert await page.closed() == consumers.NOT_READY


async def test_the_page_opens_while_the_store_is_away_and_says_since_when(
    node: Node, browser: Client, maria: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = RedisPubSubChannelLayer(hosts=["redis://127.0.0.1:1"])
    monkeypatch.setattr(consumers, "get_channel_layer", lambda: away)
    monkeypatch.setattr(node, "redis", connect_async("redis://127.0.0.1:1"))
    node.catalog.lost()
    page = Page(await sign_in(browser, maria))
    assert await page.open()
    assert [each["name"] for each in (await page.frame())["services"]] == ["acme-orders"]
    assert (await page.frame())["stale_since"] is not None
    await page.leave()


async def test_an_unknown_socket_is_refused() -> None:
    assert not await Page(path="/ws/other/").open()
