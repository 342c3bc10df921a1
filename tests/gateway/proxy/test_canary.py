"""Targets by choice: a header, a cookie, tags of instances."""

from __future__ import annotations

import pytest

from gateway.proxy.policies import Pair
from gateway.proxy.table import Target
from tests.gateway.proxy.conftest import Running, Service, World, a_route


@pytest.fixture
async def canary(world: World) -> tuple[Running, Service, Service]:
    """Everybody gets `stable`; who asks for it by header or cookie, `new`."""
    stable = await world.service(id="stable", tags=("stable",))
    new = await world.service(id="new", tags=("new", "beta"))
    world.publish(
        a_route(
            targets=(
                Target("orders", tags=("stable",)),
                Target("orders", weight=0, tags=("new",), header=Pair("X-Canary", "yes"), cookie=Pair("canary", "1")),
            )
        )
    )
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    return gateway, stable, new


@pytest.mark.parametrize(
    "headers", [{"X-Canary": "yes"}, {"x-canary": "yes"}, {"Cookie": "a=b; canary=1"}, {"Cookie": "canary=1;c=d"}]
)
async def test_who_asks_for_the_canary_gets_it(
    canary: tuple[Running, Service, Service], headers: dict[str, str]
) -> None:
    gateway, stable, new = canary
    for _ in range(3):
        assert (await gateway.get(headers=headers)).status_code == 200
    assert (len(stable.calls), len(new.calls)) == (0, 3)


@pytest.mark.parametrize("headers", [{}, {"X-Canary": "no"}, {"Cookie": "xcanary=1; canary=12"}])
async def test_nobody_else_does(canary: tuple[Running, Service, Service], headers: dict[str, str]) -> None:
    gateway, stable, new = canary
    for _ in range(3):
        assert (await gateway.get(headers=headers)).status_code == 200
    assert (len(stable.calls), len(new.calls)) == (3, 0)


async def test_a_canary_without_an_instance_leaves_its_askers_to_the_others(
    canary: tuple[Running, Service, Service], world: World
) -> None:
    gateway, stable, _ = canary
    world.publish(
        a_route(
            targets=(
                Target("orders", tags=("stable",)),
                Target("orders", tags=("nobody",), header=Pair("X-Canary", "yes")),
            )
        )
    )
    await gateway.serves(world._revision)
    assert (await gateway.get(headers={"X-Canary": "yes"})).status_code == 200
    assert len(stable.calls) == 1


async def test_an_instance_must_have_all_of_the_tags(canary: tuple[Running, Service, Service], world: World) -> None:
    gateway, stable, new = canary
    world.publish(a_route(targets=(Target("orders", tags=("new", "beta")),)))
    await gateway.serves(world._revision)
    assert (await gateway.get()).status_code == 200
    world.publish(a_route(targets=(Target("orders", tags=("new", "stable")),)))
    await gateway.serves(world._revision)
    assert (await gateway.get()).status_code == 503
    assert (len(stable.calls), len(new.calls)) == (0, 1)
