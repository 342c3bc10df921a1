"""A request that came before is told by its bytes, whoever sends it: never is one taken for another, or by the wrong
caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anumate.lib.problem import Problem
from gateway.proxy.exchange import Exchange
from gateway.proxy.heads import Template
from gateway.proxy.live import Here
from gateway.proxy.policies import Pair, Sticky
from gateway.proxy.recall import CALLERS, KNOWN, Memory
from gateway.proxy.request import Link, read_request
from gateway.proxy.router import Router
from gateway.proxy.table import RateLimit, RoutingTable, Target, Upstream, reads_credentials
from registry.live import keys as api_keys
from registry.live.presented import presented_key
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Running, Service, World, a_route

Send = Callable[..., Any]


class Person:
    """A key and its record."""

    def __init__(self, name: str, **terms: Any) -> None:
        self.id, self.key = api_keys.make()
        digest = api_keys.secret_hash(PEPPER, self.key)
        self.record = api_keys.KeyRecord(self.id, name, "default", digest, ("gateway:invoke",), **terms)


ANN, BOB, CY = Person("ann"), Person("bob"), Person("cy", routes=("others",))


@pytest.fixture
async def gateway(world: World, service: Service) -> Running:
    world.publish_keys(ANN.record, BOB.record, CY.record)
    running = await world.gateway()
    await running.knows("orders", 1)
    await eventually(lambda: ANN.id in (running.app.node.keys._records or {}), what="the keys")
    return running


async def ask(gateway: Running, person: Person, field: str = "X-API-Key", **fields: str) -> httpx.Response:
    value = person.key if field == "X-API-Key" else f"Bearer {person.key}"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        return await client.get("/orders/7", headers={field: value, **fields})


async def make_known(gateway: Running, person: Person = ANN, field: str = "X-API-Key", **fields: str) -> None:
    """Have the request remembered, as this one sends it."""
    known = gateway.app.direct._memory._known
    for _ in range(5):
        if known:
            return
        assert (await ask(gateway, person, field, **fields)).status_code == 200
    raise AssertionError("It is not remembered.")


@pytest.mark.parametrize("field", ["X-API-Key", "Authorization"])
async def test_one_request_is_remembered_once_and_every_caller_is_told_by_its_own_key(
    gateway: Running, service: Service, field: str
) -> None:
    await make_known(gateway, ANN, field)
    for person in (BOB, ANN, BOB, ANN):
        service.calls.clear()
        assert (await ask(gateway, person, field)).status_code == 200
        (call,) = service.calls
        assert call.one("x-consumer-id") == person.id
        assert call.one("x-consumer-name") == person.record.name
        assert person.key.encode() not in call.head
    assert len(gateway.app.direct._memory._known) == 1


async def test_a_caller_is_let_in_to_each_route_for_itself(gateway: Running) -> None:
    await make_known(gateway)
    assert (await ask(gateway, BOB)).status_code == 200
    for _ in range(3):
        answer = await ask(gateway, CY)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert (await ask(gateway, Person("nobody"))).json()["code"] == "api_key_invalid"


async def test_a_revoked_key_is_not_let_in_by_what_is_remembered(gateway: Running, world: World) -> None:
    await make_known(gateway)
    assert (await ask(gateway, BOB)).status_code == 200
    era = gateway.app.node.keys.era
    world.publish_keys(ANN.record)
    await eventually(lambda: gateway.app.node.keys.era is not era, what="the keys")
    assert (await ask(gateway, BOB)).json()["code"] == "api_key_invalid"
    assert (await ask(gateway, ANN)).status_code == 200


async def test_a_second_key_in_another_field_is_refused_all_the_same(gateway: Running) -> None:
    await make_known(gateway)
    for _ in range(3):
        answer = await ask(gateway, ANN, Authorization=f"Bearer {BOB.key}")
        assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")


async def test_a_route_for_everybody_is_remembered_with_the_key_that_came(
    gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(auth_required=False))
    await gateway.serves(world._revision)
    await make_known(gateway)
    service.calls.clear()
    for person in (ANN, BOB, Person("nobody")):
        assert (await ask(gateway, person)).status_code == 200
    assert not any(call.all("x-consumer-id") for call in service.calls)


async def test_where_rules_go_by_the_field_of_keys_each_key_is_a_request_of_its_own(
    gateway: Running, world: World, service: Service
) -> None:
    world.publish(
        a_route(rate_limits=("few",)), rate_limits=(RateLimit("default", "few", 0.001, 500, "header:X-API-Key"),)
    )
    await gateway.serves(world._revision)
    await make_known(gateway)
    for person in (ANN, BOB, BOB):
        assert (await ask(gateway, person)).status_code == 200
    app = gateway.app
    (policy,) = app.live.current.policies.values()
    buckets = [app.limiter.bucket(policy, person.key, app.now()) for person in (ANN, BOB)]
    assert all(bucket.taken or bucket.drawn_at for bucket in buckets)
    assert len(app.limiter._buckets) == 2


@pytest.mark.parametrize(
    "table",
    [
        RoutingTable(routes=(a_route(headers=(Pair("X-Api-Key", "a"),)),)),
        RoutingTable(routes=(a_route(targets=(Target("orders", header=Pair("authorization", "a")),)),)),
        RoutingTable(rate_limits=(RateLimit("default", "few", 1, 1, "header:x-api-key"),)),
        RoutingTable(upstreams=(Upstream("default", "orders", sticky=Sticky("header:Authorization")),)),
    ],
)
def test_a_table_tells_that_its_rules_go_by_the_fields_of_keys(table: RoutingTable) -> None:
    assert reads_credentials(table)
    assert not reads_credentials(RoutingTable(routes=(a_route(headers=(Pair("x-api-version", "1"),)),)))


# The memory by itself


def a_memory(*people: Person) -> tuple[Memory, Here, api_keys.KeyRing]:
    ring = api_keys.KeyRing(PEPPER)
    ring.replace([person.record for person in people], [api_keys.TenantRecord("default")])
    return Memory(ring), Here(1, Router(RoutingTable()), cast(Any, {}), {}), ring


def an_exchange(data: bytes, person: Person | None, route: int = 1) -> Exchange:
    request = read_request(data)
    assert request is not None
    x = Exchange.of_request(request, Link("127.0.0.1", "http", 80), 0.0)
    x.client = person.record if person else None
    x.binding = cast(Any, type("Bound", (), {"route": a_route(id=route)}))
    return x


HEAD = Template(b"", b"")


def keep(memory: Memory, here: Here, data: bytes, person: Person) -> None:
    """As `Direct` does: it asks first."""
    memory.recall(data, here)
    memory.remember(data, an_exchange(data, person), HEAD, here, again=True)


def a_request(key: str, name: bytes = b"X-API-Key", more: bytes = b"") -> bytes:
    return b"GET /a HTTP/1.1\r\nHost: h\r\n%b: %b\r\nX-Other: \r\n%b\r\n" % (name, key.encode(), more)


def test_a_key_that_stands_elsewhere_makes_another_request() -> None:
    memory, here, _ = a_memory(ANN)
    data = a_request(ANN.key)
    keep(memory, here, data, ANN)
    assert memory.recall(data, here) is not None
    elsewhere = data.replace(b"X-API-Key: " + ANN.key.encode(), b"X-API-Key: ").replace(
        b"X-Other: ", b"X-Other: " + ANN.key.encode()
    )
    assert memory.recall(elsewhere, here) is None


def test_what_is_no_key_is_no_caller() -> None:
    memory, here, _ = a_memory(ANN)
    data = a_request(ANN.key)
    keep(memory, here, data, ANN)
    for bad in (b"anm_" + b"\r\nA: b\r\n".ljust(50, b"x"), b"anm_".ljust(54, b"x"), ANN.key.encode()[:-1] + b"\n"):
        assert memory.recall(data.replace(ANN.key.encode(), bad), here) is None


@pytest.mark.parametrize("changed", ["table", "keys"])
def test_nothing_is_remembered_over_a_change(changed: str) -> None:
    memory, here, ring = a_memory(ANN)
    data = a_request(ANN.key)
    keep(memory, here, data, ANN)
    if changed == "keys":
        ring.replace([ANN.record])
    else:
        here = Here(2, here.router, here.bindings, {})
    assert memory.recall(data, here) is None


def test_what_depends_on_more_than_the_bytes_is_not_remembered() -> None:
    memory, here, _ = a_memory()
    networks = Person("near", networks=("10.0.0.0/8",))
    data = a_request(networks.key)
    keep(memory, here, data, networks)
    long = a_request(ANN.key, more=b"X-Long: %b\r\n" % (b"a" * 2048))
    keep(memory, here, long, ANN)
    assert not memory._known
    assert not memory._callers


def test_it_stays_within_its_bounds() -> None:
    memory, here, _ = a_memory(ANN)
    for number in range(KNOWN + 5):
        data = a_request(ANN.key, more=b"X-Number: %d\r\n" % number)
        keep(memory, here, data, ANN)
        assert len(memory._known) <= KNOWN
    for number in range(CALLERS + 5):
        memory._let_in(b"%d" % number, ANN.record, 1)
        assert len(memory._callers) <= CALLERS


KEYS = st.sampled_from([ANN.key, BOB.key])
VALUES = st.one_of(KEYS, st.sampled_from(["", "anm_", "Bearer anm_", "a"]), KEYS.map("Bearer {}".format))
NAMES = st.sampled_from(["X-API-Key", "Authorization", "X-Other", "Cookie"])
REQUESTS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(
    lambda fields: (
        "\r\n".join(["GET /a HTTP/1.1", "Host: h", *(f"{name}: {value}" for name, value in fields), "", ""])
    ).encode()
)


def _who(ring: api_keys.KeyRing, data: bytes) -> api_keys.KeyRecord | None:
    request = read_request(data)
    try:
        return ring.verify(presented_key(request.fields.known), 0.0) if request else None
    except Problem:
        return None


def _rest(data: bytes) -> list[tuple[bytes, bytes]]:
    """The fields but for the key that was presented."""
    request = read_request(data)
    assert request is not None
    key = presented_key(request.fields.known)
    return [(name, value.replace(key.encode(), b"-") if key else value) for name, value in request.fields.all]


@given(st.lists(REQUESTS, max_size=6), REQUESTS)
def test_what_is_recalled_is_what_would_be_read(before: list[bytes], data: bytes) -> None:
    memory, here, ring = a_memory(ANN, BOB)
    people = {person.id: person for person in (ANN, BOB)}
    for each in before:
        if (record := _who(ring, each)) is not None:
            keep(memory, here, each, people[record.id])
    recalled = memory.recall(data, here)
    if recalled is not None:
        known, caller = recalled
        assert caller is not None
        assert caller.client is _who(ring, data)
        original = next(each for each in before if read_request(each).fields.all == list(known.x.fields.all))  # type: ignore[union-attr]
        assert _rest(data) == _rest(original)
