"""HTTP by service name, against real servers."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from anumate_integration_service import errors
from anumate_integration_service.balancing import STRATEGIES
from anumate_integration_service.breaker import BreakerPolicy
from anumate_integration_service.deadlines import deadline, remaining
from anumate_integration_service.instances import Endpoint, ServiceInstance
from anumate_integration_service.retries import RetryPolicy
from anumate_integration_service.testing import FakeRegistry
from anumate_integration_service.transports import AnumateTransport, CircuitOpen, NoInstances, SyncAnumateTransport
from tests.client.backends import Backend, backends
from tests.conftest import eventually, wait_until

ONE_FAILURE = BreakerPolicy(consecutive_failures=1, open_seconds=60, half_open_calls=1)
NO_RETRIES = RetryPolicy(attempts=1)


@pytest.fixture
def three() -> Iterator[list[Backend]]:
    with backends(3) as started:
        yield started


@pytest.fixture
def registry(three: list[Backend]) -> FakeRegistry:
    registry = FakeRegistry()
    for number, backend in enumerate(three, start=1):
        registry.add("orders", backend.url, instance_id=f"orders-{number}")
    return registry


class Clients:
    """Makes clients over the registry and closes them."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.made: list[httpx.AsyncClient] = []
        self.transport: AnumateTransport

    def __call__(self, **options: Any) -> httpx.AsyncClient:
        self.transport = AnumateTransport(self.registry, **({"strategy": "round_robin"} | options))
        self.made.append(httpx.AsyncClient(transport=self.transport))
        return self.made[-1]

    def states(self) -> dict[str, str]:
        core = self.transport._core
        return {each.id: each.breaker.snapshot(core.clock()).state for each in core._upstreams.values()}

    def in_flight(self) -> int:
        return sum(each.in_flight for each in self.transport._core._upstreams.values())


@pytest.fixture
async def client_with(registry: FakeRegistry) -> AsyncIterator[Clients]:
    clients = Clients(registry)
    yield clients
    for each in clients.made:
        await each.aclose()


def gone() -> str:
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_request_by_name_goes_to_an_instance_with_its_host_kept(
    client_with: Clients, three: list[Backend]
) -> None:
    response = await client_with().post("http://orders/v1/x?y=1", content=b"hello")
    assert (response.status_code, response.text) == (200, "firstagain")
    (seen,) = three[0].seen
    assert (seen.method, seen.path, seen.body, seen.headers["host"]) == ("POST", "/v1/x?y=1", b"hello", "orders")
    assert response.extensions["anumate"] == {"service": "orders", "instance_id": "orders-1", "attempts": 1}
    assert str(response.url) == "http://orders/v1/x?y=1"


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_every_strategy_reaches_every_instance(client_with: Clients, three: list[Backend], strategy: str) -> None:
    client = client_with(strategy=strategy)
    for number in range(60):
        await client.get("http://orders/", extensions={"anumate": {"key": str(number)}})
    assert sum(len(each.seen) for each in three) == 60
    assert all(each.seen for each in three)


async def test_it_follows_who_comes_and_goes(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    client = client_with()
    first = registry.instances("orders")[0]
    registry.mark(first)
    for _ in range(4):
        await client.get("http://orders/")
    assert [len(each.seen) for each in three] == [0, 2, 2]
    registry.mark(first, status="healthy")
    for _ in range(3):
        await client.get("http://orders/")
    assert len(three[0].seen) == 1


async def test_a_request_can_say_whom_it_wants(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    registry.add("orders", three[2].url, instance_id="orders-3", version="2.1.0", tags=["eu"])
    client = client_with()
    for wanted in ({"version": ">=2"}, {"tags": ["eu"]}):
        response = await client.get("http://orders/", extensions={"anumate": wanted})
        assert response.extensions["anumate"]["instance_id"] == "orders-3"


async def test_a_bare_unknown_name_has_no_instances(client_with: Clients) -> None:
    with pytest.raises(NoInstances, match="no instance of nobody") as raised:
        await client_with().get("http://nobody/")
    assert raised.value.service == "nobody"
    assert isinstance(raised.value, errors.NoInstances)
    assert isinstance(raised.value, httpx.TransportError)


async def test_a_host_that_is_no_service_is_reached_as_ever(client_with: Clients, three: list[Backend]) -> None:
    client = client_with()
    assert (await client.get(three[0].url)).status_code == 200
    assert (await client.get(three[0].url.replace("127.0.0.1", "localhost"))).status_code == 200
    direct = httpx.MockTransport(lambda request: httpx.Response(204))
    for host in ("example.com", "a.b.orders", "v1.unknown", "10.0.0.7", "[::1]", "localhost", "orders:81"):
        assert (await client_with(direct=direct).get(f"http://{host}/")).status_code == 204


async def test_an_endpoint_is_reached_by_its_name(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    port = three[1].server.server_port
    endpoints = {"http": Endpoint("http", "127.0.0.1", 1), "admin": Endpoint("http", "127.0.0.1", port)}
    registry.put(ServiceInstance("billing", "billing-1", endpoints=endpoints))
    assert (await client_with().get("http://admin.billing/")).status_code == 200
    with pytest.raises(NoInstances):
        await client_with().get("http://grpc.billing/")
    with pytest.raises(NoInstances):
        await client_with().get("https://billing/")


async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    registry.add("orders", gone(), instance_id="orders-0")  # the first in turn
    client = client_with(breaker=ONE_FAILURE)
    response = await client.post("http://orders/", content=b"once")
    assert response.extensions["anumate"]["attempts"] == 2
    assert client_with.states()["orders-0"] == "open"
    for _ in range(6):
        assert (await client.get("http://orders/")).extensions["anumate"]["attempts"] == 1
    assert [seen.body for each in three for seen in each.seen if seen.method == "POST"] == [b"once"]


async def test_a_streamed_body_of_which_nothing_was_sent_is_tried_elsewhere(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"stre"
        yield b"amed"

    registry.add("orders", gone(), instance_id="orders-0")
    response = await client_with().post("http://orders/", content=parts())
    assert response.extensions["anumate"]["attempts"] == 2
    assert [seen.body for each in three for seen in each.seen] == [b"streamed"]


@pytest.mark.parametrize("fault", ["hangs_up", "speaks_nonsense"])
async def test_what_may_have_arrived_is_sent_again_only_when_that_changes_nothing(
    client_with: Clients, three: list[Backend], fault: str
) -> None:
    setattr(three[0], fault, True)
    client = client_with()
    assert (await client.put("http://orders/", content=b"same")).extensions["anumate"]["attempts"] == 2
    client = client_with()
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("http://orders/", content=b"once")
    assert [len(each.seen) for each in three] == [2, 1, 0]


async def test_an_unavailable_answer_is_asked_for_elsewhere_and_else_handed_on(
    client_with: Clients, three: list[Backend]
) -> None:
    three[0].status = three[1].status = 503
    response = await client_with().get("http://orders/")
    assert (response.status_code, response.extensions["anumate"]["attempts"]) == (200, 3)
    three[2].status = 503
    assert (await client_with().get("http://orders/")).status_code == 503
    assert (await client_with().post("http://orders/")).status_code == 503
    assert client_with.in_flight() == 0


async def test_retries_end_with_their_budget(client_with: Clients, three: list[Backend]) -> None:
    for each in three:
        each.status = 503
    client = client_with(retries=RetryPolicy(ratio=0.0, floor=2), breaker=None)
    for _ in range(10):
        assert (await client.get("http://orders/")).status_code == 503
    assert sum(len(each.seen) for each in three) == 12


async def test_every_instance_failing_opens_every_breaker_and_then_nobody_is_asked(
    client_with: Clients, three: list[Backend]
) -> None:
    for each in three:
        each.status = 500
    client = client_with(breaker=ONE_FAILURE)
    for _ in range(3):
        assert (await client.get("http://orders/")).status_code == 500
    with pytest.raises(CircuitOpen) as raised:
        await client.get("http://orders/")
    assert 50 < raised.value.retry_after <= 60
    assert isinstance(raised.value, errors.CircuitOpen)
    assert isinstance(raised.value, httpx.TransportError)
    assert sum(len(each.seen) for each in three) == 3


async def test_an_open_breaker_lets_one_trial_through_and_closes_again(
    client_with: Clients, three: list[Backend]
) -> None:
    now = [1000.0]
    three[0].status = 500
    client = client_with(breaker=ONE_FAILURE, clock=lambda: now[0])
    for _ in range(7):
        await client.get("http://orders/")
    assert len(three[0].seen) == 1
    three[0].status = 200
    now[0] += 60
    for _ in range(3):
        await client.get("http://orders/")
    assert (len(three[0].seen), client_with.states()["orders-1"]) == (2, "closed")


async def test_a_timeout_is_the_instances_failure(client_with: Clients, three: list[Backend]) -> None:
    three[0].hold_before = True
    client = client_with(breaker=ONE_FAILURE)
    with pytest.raises(httpx.ReadTimeout):
        await client.post("http://orders/", timeout=0.1)
    assert client_with.states()["orders-1"] == "open"
    assert client_with.in_flight() == 0


async def test_a_call_that_was_given_up_is_neither_success_nor_failure(
    client_with: Clients, three: list[Backend]
) -> None:
    three[0].hold_before = True
    client = client_with(breaker=ONE_FAILURE)
    asked = asyncio.create_task(client.get("http://orders/"))
    await eventually(lambda: three[0].seen)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    (upstream,) = [each for each in client_with.transport._core._upstreams.values() if each.id == "orders-1"]
    assert (upstream.in_flight, upstream.seen, upstream.breaker.snapshot(0.0).calls) == (0, 0.0, 0)


async def test_a_streamed_answer_is_in_flight_until_it_is_closed(client_with: Clients, three: list[Backend]) -> None:
    three[0].hold_within = True
    client = client_with()
    async with client.stream("GET", "http://orders/") as response:
        async for part in response.aiter_raw():
            assert part == b"first"
            break
        assert client_with.in_flight() == 1
    assert client_with.in_flight() == 0


async def test_an_answer_that_breaks_off_is_blamed_on_its_instance(client_with: Clients, three: list[Backend]) -> None:
    three[0].breaks_off = True
    client = client_with(breaker=ONE_FAILURE)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("http://orders/")
    assert client_with.states()["orders-1"] == "open"
    assert client_with.in_flight() == 0


async def test_connections_to_who_left_are_closed_once_their_last_answer_is_read(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    three[0].hold_within = True
    client = client_with()
    first = registry.instances("orders")[0]
    async with client.stream("GET", "http://orders/") as response:
        registry.remove(first)
        await client.get("http://orders/")
        assert three[0].closed == 0
        three[0].release.set()
        assert await response.aread() == b"firstagain"
    await eventually(lambda: three[0].closed == 1)
    assert three[1].closed == 0


async def test_idle_connections_to_who_left_are_closed_though_the_service_is_not_called_again(
    client_with: Clients, registry: FakeRegistry, three: list[Backend]
) -> None:
    now = [0.0]
    registry.add("billing", three[2].url)
    client = client_with(clock=lambda: now[0])
    await client.get("http://orders/")
    registry.remove(registry.instances("orders")[0])
    now[0] += 10
    await client.get("http://billing/")
    await eventually(lambda: three[0].closed == 1)


async def test_a_traceparent_is_added_when_there_is_none(client_with: Clients, three: list[Backend]) -> None:
    client = client_with()
    await client.get("http://orders/")
    await client.get("http://orders/", headers={"traceparent": "mine"})
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", three[0].seen[0].headers["traceparent"])
    assert three[1].seen[0].headers["traceparent"] == "mine"


async def test_a_deadline_shortens_every_wait_and_reaches_nested_calls(
    client_with: Clients, three: list[Backend]
) -> None:
    three[0].hold_before = True
    client = client_with(retries=NO_RETRIES)
    with deadline(0.1), deadline(50), pytest.raises(httpx.ReadTimeout):
        await client.get("http://orders/", timeout=60)
    three[1].hold_before = True
    with pytest.raises(httpx.ReadTimeout):
        await client.get("http://orders/", timeout=None, extensions={"anumate": {"deadline": 0.1}})
    with deadline(0.0), pytest.raises(httpx.ConnectTimeout, match="deadline"):
        await client.get("http://orders/")
    with pytest.raises(httpx.ConnectTimeout, match="deadline"):
        await client.get("http://orders/", extensions={"anumate": {"deadline": 0}})
    assert [len(each.seen) for each in three] == [1, 1, 0]
    assert remaining() is None


async def test_a_listener_hears_of_each_instances_breaker(client_with: Clients, three: list[Backend]) -> None:
    heard: list[tuple[str, str]] = []
    three[0].status = 500
    client = client_with(
        breaker=ONE_FAILURE, on_breaker=lambda instance, event: heard.append((instance.instance_id, event.kind))
    )
    await client.get("http://orders/")
    assert heard == [("orders-1", "failure"), ("orders-1", "state")]


def test_the_sync_transport_decides_the_same(registry: FakeRegistry, three: list[Backend]) -> None:
    registry.add("orders", gone(), instance_id="orders-0")
    three[1].status = 503
    with httpx.Client(transport=SyncAnumateTransport(registry, strategy="round_robin")) as client:
        assert client.post("http://orders/", content=b"x").extensions["anumate"]["attempts"] == 2
        answers = [client.get("http://orders/") for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        with pytest.raises(NoInstances):
            client.get("http://nobody/")
        assert client.get(three[0].url).status_code == 200


def test_the_sync_transport_closes_connections_to_who_left(registry: FakeRegistry, three: list[Backend]) -> None:
    with httpx.Client(transport=SyncAnumateTransport(registry, strategy="round_robin")) as client:
        client.get("http://orders/")
        for each in registry.instances("orders"):
            registry.remove(each)
        with pytest.raises(NoInstances):
            client.get("http://orders/")
        wait_until(lambda: three[0].closed == 1)


def test_an_answer_that_breaks_off_is_blamed_by_the_sync_transport_too(
    registry: FakeRegistry, three: list[Backend]
) -> None:
    for each in three:
        each.breaks_off = True
    with httpx.Client(transport=SyncAnumateTransport(registry, breaker=ONE_FAILURE)) as client:
        for _ in three:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get("http://orders/")
        with pytest.raises(CircuitOpen):
            client.get("http://orders/")


def test_a_deadline_shortens_the_sync_transports_waits_too(registry: FakeRegistry, three: list[Backend]) -> None:
    three[0].hold_before = True
    transport = SyncAnumateTransport(registry, strategy="round_robin", retries=NO_RETRIES)
    with httpx.Client(transport=transport, timeout=60) as client, deadline(0.1), pytest.raises(httpx.ReadTimeout):
        client.get("http://orders/")


def test_threads_share_the_sync_transport(registry: FakeRegistry, three: list[Backend]) -> None:
    answers: list[str] = []
    with httpx.Client(transport=SyncAnumateTransport(registry, strategy="least_connections")) as client:

        def ask() -> None:
            for _ in range(10):
                answers.append(client.get("http://orders/").extensions["anumate"]["instance_id"])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(answers) == 40
    assert Counter(answers).keys() == {"orders-1", "orders-2", "orders-3"}
