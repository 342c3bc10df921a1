"""What a rate-limit policy counts by, and what an answer says of it."""

from __future__ import annotations

import math

import pytest

from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import World, a_route
from tests.gateway.proxy.limiters import a_policy


def test_a_header_is_never_a_key_in_redis() -> None:
    policy = a_policy(by="header:x-secret")
    assert "swordfish" not in policy.key("swordfish")
    assert policy.key("a") != policy.key("b")


async def test_the_fields_say_what_is_left(world: World) -> None:
    limit = RateLimit("default", "gold", 1.0, 3, "key")
    world.publish(a_route(rate_limits=("gold",)), rate_limits=(limit,))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answers = [await gateway.get() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"gold";q=3;w=3'
    assert [answer.headers["ratelimit"] for answer in answers] == [f'"gold";r={left};t=1' for left in (2, 1, 0, 0)]
    assert (answers[3].json()["code"], answers[3].headers["retry-after"]) == ("rate_limited", "1")


@pytest.mark.parametrize("by", ["address", "tenant", "route", "header:x-who"])
async def test_a_policy_counts_by_what_it_says(world: World, by: str) -> None:
    limit = RateLimit("default", "gold", 0.001, 1, by)
    world.publish(a_route(rate_limits=("gold",)), a_route("other", rate_limits=("gold",)), rate_limits=(limit,))
    await world.service()
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    requests = [("/orders", "a"), ("/orders", "a"), ("/other", "a"), ("/orders", "b")]
    statuses = [(await gateway.get(path, headers={"X-Who": who})).status_code for path, who in requests]
    expected = {"route": [200, 429, 200, 429], "header:x-who": [200, 429, 429, 200]}
    assert statuses == expected.get(by, [200, 429, 429, 429])


async def test_a_tenants_policy_named_default_leaves_the_built_in_limit_alone(world: World) -> None:
    generous = RateLimit("default", "default", 1000.0, 1000, "key")
    world.publish(a_route(), a_route("paid", rate_limits=("default",)), rate_limits=(generous,))
    await world.service()
    gateway = await world.gateway(default_rate_limit=1)
    await gateway.knows("orders", 1)
    requests = ["/orders", "/paid", "/orders", "/paid"]
    answers = [await gateway.get(path) for path in requests]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert answers[0].headers["ratelimit-policy"] == '"default";q=1;w=1'


def test_a_policy_field_names_the_window_in_which_the_burst_grows_back() -> None:
    assert a_policy(rate=3, burst=10).policy_field == b'"gold";q=10;w=%d' % math.ceil(10 / 3)
