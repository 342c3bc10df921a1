"""Pages of other origins: each route may say who may call it."""

from __future__ import annotations

import pytest

from gateway.proxy.policies import Cors
from tests.gateway.proxy.conftest import Running, World, a_route

SHOP = "https://shop.example"
PREFLIGHT = {"Origin": SHOP, "Access-Control-Request-Method": "PUT", "X-API-Key": ""}


@pytest.fixture
async def routed(world: World) -> Running:
    await world.service()
    cors = Cors(origins=(SHOP,), methods=("PUT",), headers=("X-A", "X-B"), expose=("X-C",), credentials=True, max_age=5)
    world.publish(
        a_route(methods=("GET", "PUT"), cors=cors), a_route("plain", path="/plain"), a_route("any", cors=Cors(("*",)))
    )
    gateway = await world.gateway(cors_origins=("https://everywhere.example",))
    await gateway.knows("orders", 1)
    return gateway


async def test_a_preflight_is_answered_as_its_route_says_without_a_key(routed: Running) -> None:
    answer = await routed.client.options("/orders", headers=PREFLIGHT)
    found = {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}
    assert answer.status_code == 204
    assert found["access-control-allow-origin"] == SHOP
    assert found["access-control-allow-methods"] == "PUT"
    assert found["access-control-allow-headers"] == "X-A, X-B"
    assert found["access-control-allow-credentials"] == "true"
    assert found["access-control-max-age"] == "5"


async def test_an_answer_tells_a_listed_page_what_it_may_read(routed: Running) -> None:
    answer = await routed.get(headers={"Origin": SHOP})
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-expose-headers"].endswith(", X-C")
    assert answer.headers["vary"] == "Origin"


async def test_what_the_gateway_refuses_can_be_read_by_the_page_too(routed: Running) -> None:
    answer = await routed.get(headers={"Origin": SHOP, "X-API-Key": ""})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, SHOP)


async def test_a_page_that_is_not_listed_gets_no_leave(routed: Running) -> None:
    answer = await routed.client.options("/orders", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert answer.status_code == 204
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_routes_without_rules_follow_those_for_all(routed: Running) -> None:
    everywhere = {**PREFLIGHT, "Origin": "https://everywhere.example"}
    for path in ("/plain", "/no-such-route"):
        answer = await routed.client.options(path, headers=everywhere)
        assert answer.headers["access-control-allow-origin"] == "https://everywhere.example"
    assert "access-control-allow-origin" not in (await routed.client.options("/orders", headers=everywhere)).headers


async def test_a_route_may_be_open_to_every_page(routed: Running) -> None:
    assert (await routed.get("/any", headers={"Origin": SHOP})).headers["access-control-allow-origin"] == "*"
