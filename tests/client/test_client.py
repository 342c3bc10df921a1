from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn

from anumate_integration_service import (
    AnumateError,
    DiscoveryClient,
    RegistrationRefused,
    RegistryUnavailable,
    ServiceCapability,
    create_discovery_client,
    registry_api,
)
from anumate_integration_service.registry_api import RegistryApi
from tests.client.stand_in import StandIn, stand_in
from tests.conftest import eventually


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


def client_of(registry: StandIn, **options: Any) -> DiscoveryClient:
    options = {"service_name": "orders", "http_port": 8000, "instance_id": "orders-1", "api_key": "a key"} | options
    return create_discovery_client(registry_url=registry.url, **options)


async def test_it_registers_what_it_was_told_with_the_key(registry: StandIn) -> None:
    client = client_of(
        registry,
        capabilities=[ServiceCapability.HTTP_API, "invoices"],
        tags=["api"],
        metadata={"version": "1.2.0", "env": "test"},
        lease_ttl=9,
        health_check={"check_type": "http", "path": "/health"},
    )
    async with client:
        asked = registry.asked[0]
    assert (asked.method, asked.path, asked.headers["x-api-key"]) == ("POST", "/v1/services/register", "a key")
    assert asked.body == {
        "name": "orders",
        "version": "1.2.0",
        "instance_id": "orders-1",
        "endpoints": {"http": {"protocol": "http", "host": "127.0.0.1", "port": 8000}},
        "capabilities": ["http_api", "invoices"],
        "tags": ["api"],
        "metadata": {"version": "1.2.0", "env": "test"},
        "lease_ttl": 9,
        "health_check": {"check_type": "http", "path": "/health"},
    }


async def test_a_weight_of_nothing_is_said_and_what_was_left_out_is_not(registry: StandIn) -> None:
    async with client_of(registry, weight=0):
        body = registry.asked[0].body
    assert body["weight"] == 0
    assert not {"zone", "lease_ttl", "health_check"} & body.keys()


def test_an_address_that_is_none_is_refused_in_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANUMATE_URL", "foo")
    with pytest.raises(ValueError, match=r"^'foo' is no address of a control plane: it takes one like http://local"):
        create_discovery_client(service_name="orders", http_port=8000)
    with pytest.raises(ValueError, match=r"^'http://\*\*\*@registry:port' is no address"):
        create_discovery_client(service_name="orders", http_port=8000, registry_url="http://me:secret@registry:port")


async def test_it_keeps_its_lease_until_it_stops_and_sends_nothing_after(registry: StandIn) -> None:
    client = client_of(registry)
    await client.start()
    await eventually(lambda: registry.count("PUT", "/heartbeat") >= 3)
    await client.stop()
    asked = len(registry.asked)
    assert registry.count("DELETE", "/orders/orders-1") == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("anumate")]  # none left to send
    await client.stop()
    assert len(registry.asked) == asked


async def test_a_forgotten_instance_registers_again(registry: StandIn) -> None:
    async with client_of(registry):
        registry.leases.clear()
        await eventually(lambda: "orders-1" in registry.leases)
    assert registry.count("POST", "/register") == 2


async def test_a_registry_that_is_away_at_the_start_is_registered_with_once_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stand_in() as registry:
        port = int(registry.url.rpartition(":")[2])
    client = client_of(registry)
    await client.start()
    assert not client.registered
    async with stand_in(port) as back:
        await eventually(lambda: "orders-1" in back.leases)
        await client.stop()
    assert "not registered yet" in caplog.text


async def test_a_refusal_is_raised_at_the_start_where_registration_is_required(registry: StandIn) -> None:
    registry.refuse_with = 401
    client = client_of(registry, required=True)
    with pytest.raises(RegistrationRefused, match="The stand-in says no") as raised:
        await client.start()
    assert (raised.value.status, raised.value.code) == (401, "stand_in")
    await client.stop()


async def test_a_refusal_is_told_to_the_callback_and_ends_nothing(
    registry: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    registry.refuse_with = 403
    told: list[AnumateError] = []

    def on_error(error: AnumateError) -> None:
        told.append(error)
        raise RuntimeError("a callback may be wrong")

    async with client_of(registry, on_error=on_error) as client:
        assert not client.registered
    assert [getattr(error, "status", 0) for error in told] == [403]
    assert "the on_error callback failed" in caplog.text


async def test_a_registry_that_is_away_is_raised_where_registration_is_required() -> None:
    async with stand_in() as registry:
        pass
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        await client_of(registry, required=True).start()


async def test_an_outage_is_logged_once_and_survived(registry: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(registry) as client:
        registry.refuse_with = 503
        seen = registry.count("PUT", "/heartbeat")
        await eventually(lambda: registry.count("PUT", "/heartbeat") >= seen + 3)
        registry.refuse_with = None
        healthy = registry.count("PUT", "/heartbeat")
        await eventually(lambda: registry.count("PUT", "/heartbeat") >= healthy + 2)
        assert client.registered
    assert caplog.text.count("the registry is away") == 1


ODD_ANSWERS = [
    {"content": b""},
    {"content": b"<html>Sign in</html>"},
    {"content": b"{}", "headers": {"content-encoding": "gzip"}},
    {"content": b"[" * 100_000},
    {"json": []},
    {"json": None},
    {"json": {"lease_ttl": None, "index": None, "services": []}},
    {"json": {"lease_ttl": "soon", "index": "a-1", "services": None}},
    {"json": {"lease_ttl": 10**400, "index": "a-1", "services": ["orders"]}},
    {"json": {"lease_ttl": -1, "index": "a-1", "services": [{"name": "orders"}]}},
    {"content": b'{"lease_ttl": NaN, "index": "a-1", "services": [{"name": "a", "instance_id": "b", "endpoints": 1}]}'},
]


@pytest.mark.parametrize("odd", ODD_ANSWERS)
async def test_an_odd_answer_counts_as_an_outage_wherever_it_is_read(odd: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        # As a stream, because a response made at once would be decoded before it was sent.
        made = httpx.Response(200, **{key: value for key, value in odd.items() if key != "headers"})
        return httpx.Response(200, headers=odd.get("headers"), stream=httpx.ByteStream(made.content))

    api = RegistryApi("http://registry", "", transport=httpx.MockTransport(answer))
    with pytest.raises(RegistryUnavailable):
        await api.register({"name": "orders"})
    with pytest.raises(RegistryUnavailable):
        await api.services()
    await api.close()


@asynccontextmanager
async def once_each() -> AsyncIterator[tuple[str, list[list[str]]]]:
    """A registry that closes each connection as its second request comes; and the methods asked on each."""
    asked: list[list[str]] = []
    ended: list[list[str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[str] = []
        asked.append(mine)
        with suppress(asyncio.IncompleteReadError):
            while len(mine) < 2:
                mine.append((await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[0])
                if len(mine) == 1:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()
        ended.append(mine)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        await eventually(lambda: len(ended) == len(asked))


async def test_what_met_a_connection_that_was_being_closed_is_asked_on_a_new_one() -> None:
    async with once_each() as (url, asked):
        api = RegistryApi(url, "")
        await api.heartbeat("orders", "orders-1", {})
        await api.deregister("orders", "orders-1")
        await api.close()
    assert asked == [["PUT", "DELETE"], ["DELETE"]]


async def test_an_idle_connection_is_let_go_of_before_a_registry_may_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uvicorn.Config("a registry").timeout_keep_alive > registry_api.IDLE
    monkeypatch.setattr(registry_api, "IDLE", 0.0)
    async with once_each() as (url, asked):
        api = RegistryApi(url, "")
        await api.heartbeat("orders", "orders-1", {})
        await api.deregister("orders", "orders-1")
        await api.close()
    assert asked == [["PUT"], ["DELETE"]]


async def test_odd_answers_end_neither_the_lease_nor_the_watch(registry: StandIn) -> None:
    async with client_of(registry) as client:
        await client.get_services()
        registry.canned = {"/v1/services": (200, []), "/v1/services/register": (200, {"lease_ttl": "soon"})}
        registry.leases.clear()
        registry.change()
        await eventually(
            lambda: registry.count("GET", "/v1/services") >= 3 and registry.count("POST", "/register") >= 3
        )
        registry.canned = {}
        await eventually(lambda: client.registered and "orders-1" in registry.leases)
        registry.change()
        async with asyncio.timeout(10):  # until the answer has been taken in, not only asked for
            while [each.instance_id for each in await client.get_services()] != ["orders-1"]:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(True, "healthy"), (None, "healthy"), (False, "unhealthy"), (OSError("the disk is full"), "unhealthy")],
)
async def test_heartbeats_say_what_the_callbacks_found(registry: StandIn, answer: object, status: str) -> None:
    def check() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = client_of(registry)
    client.add_health_check_callback(check)
    async with client:
        await eventually(lambda: registry.count("PUT", "/heartbeat"))
    body = next(asked.body for asked in registry.asked if asked.method == "PUT")
    assert body["status"] == status
    if isinstance(answer, Exception):
        assert body["output"] == "check: the disk is full"


async def test_the_worst_callback_decides_and_may_be_async(registry: StandIn) -> None:
    async def slow_but_fine() -> bool:
        await asyncio.sleep(0)
        return True

    client = client_of(registry)
    client.add_health_check_callback(slow_but_fine)
    client.add_health_check_callback(lambda: slow_but_fine())
    client.add_health_check_callback(lambda: False)
    async with client:
        await eventually(lambda: registry.count("PUT", "/heartbeat"))
    body = next(asked.body for asked in registry.asked if asked.method == "PUT")
    assert body == {"status": "unhealthy", "output": "<lambda> answered False"}


async def test_it_finds_services_by_capability_and_name_and_answers_from_memory(registry: StandIn) -> None:
    async with (
        client_of(registry, capabilities=[ServiceCapability.AUTHENTICATION]) as client,
        client_of(registry, service_name="mail", instance_id="mail-1", http_port=8001),
    ):
        await eventually(lambda: client.instances("orders") and client.instances("mail"))
        (found,) = await client.get_service_by_capability(ServiceCapability.AUTHENTICATION)
        assert (found.name, found.instance_id, found.url) == ("orders", "orders-1", "http://127.0.0.1:8000")
        assert [each.instance_id for each in await client.get_service_by_name("mail")] == ["mail-1"]
        asked = registry.count("GET", "/v1/services")
        for _ in range(100):
            await client.get_service_by_name("mail")
        assert registry.count("GET", "/v1/services") - asked <= 1  # the watch's own


async def test_it_hears_of_changes_without_being_asked(registry: StandIn) -> None:
    async with client_of(registry) as client:
        await client.get_services()
        async with client_of(registry, instance_id="orders-2", http_port=8002):
            await eventually(lambda: len(client.instances("orders")) == 2)
        await eventually(lambda: len(client.instances("orders")) == 1)


async def test_it_goes_on_with_what_it_knew_when_the_registry_is_gone() -> None:
    async with stand_in() as registry:
        client = client_of(registry)
        await client.start()
        await client.get_services()
    for _ in range(100):
        assert len(await client.get_service_by_name("orders")) == 1
    assert client.age is not None
    await client.stop()


async def test_a_registry_that_never_answered_is_an_error() -> None:
    async with stand_in() as registry:
        pass
    client = client_of(registry)
    with pytest.raises(RegistryUnavailable, match="cannot be reached"):
        await client.get_services()
    await client.stop()


async def test_the_environment_gives_the_address_and_the_key(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANUMATE_URL", registry.url)
    monkeypatch.setenv("ANUMATE_API_KEY", "from the environment")
    async with create_discovery_client(service_name="orders", http_port=8000) as client:
        assert client.instance_id.endswith("-8000")
    assert registry.asked[0].headers["x-api-key"] == "from the environment"


def test_a_capability_is_any_lower_case_word() -> None:
    assert ServiceCapability("http_api") is ServiceCapability.HTTP_API
    assert ServiceCapability("invoices") == "invoices"
    with pytest.raises(ValueError, match="Not A Word"):
        ServiceCapability("Not A Word")


def test_the_package_loads_an_http_library_only_when_it_asks_something() -> None:
    code = """
import sys
from anumate_integration_service import create_discovery_client
create_discovery_client(service_name="orders", http_port=8000).instances("mail")
sys.exit(", ".join(sorted({"httpx", "django", "packaging", "uvicorn", "msgspec"} & sys.modules.keys())) or None)
"""
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (asked.returncode, asked.stderr) == (0, "")


def test_the_package_costs_nothing_before_it_is_used() -> None:
    code = "import anumate_integration_service, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(autouse=True)
def quiet_servers() -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
