"""What an operator's word does to traffic, through a gateway on a real port."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.proxy.table import Upstream
from registry.live.instances import Fact, Key
from registry.live.keys import StateSection
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, World, a_route


@pytest.mark.parametrize(
    "whom",
    [Key("default", "orders", "old"), Key("default", "", "eu-1")],
    ids=["an instance", "a zone"],
)
async def test_a_draining_instance_ends_what_it_began_and_gets_nothing_new(world: World, whom: Key) -> None:
    world.publish(a_route())
    old = await world.service(id="old", zone="eu-1")
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(call: Call) -> None:
        call.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfi")
        began.set()
        await go_on.wait()
        await call.answer(b"nal")

    old.handler = slowly
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    in_flight = asyncio.create_task(gateway.get())
    await began.wait()
    new = await world.service(id="new", zone="eu-2")
    await gateway.knows("orders", 2)

    world.lives.put_fact(whom, "state", Fact("draining", "Set to draining by ann", since=1.0))
    await gateway.knows("orders", 1)
    answers = [await gateway.get() for _ in range(6)]
    assert [answer.text for answer in answers] == ["ok"] * 6
    assert (len(old.calls), len(new.calls)) == (1, 6)

    go_on.set()
    assert (await in_flight).text == "final"
    await eventually(lambda: old.open == 0, what="the connection to the drained instance to end")

    old.handler = new.handler
    world.lives.put_fact(whom, "state", Fact("enabled", "Set to enabled by ann", since=2.0))
    await gateway.knows("orders", 2)
    for _ in range(4):
        await gateway.get()
    assert len(old.calls) == 3


async def test_a_weight_of_the_operators_stands_in_for_the_registered_one(world: World) -> None:
    world.publish(a_route(), upstreams=(Upstream("default", "orders", load_balancing="weighted"),))
    light, heavy = await world.service(id="light", weight=100), await world.service(id="heavy", weight=100)
    word = Fact("enabled", "Set to enabled with weight 25 by ann", since=1.0, weight=25)
    states = StateSection({str(Key("default", "orders", "light")): word})
    world._publish("states", msgspec.json.encode(states))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    await eventually(lambda: {e.weight for e in gateway.app.balancer.endpoints()} == {25, 100}, what="the weight")
    for _ in range(50):
        assert (await gateway.get()).status_code == 200
    assert (len(light.calls), len(heavy.calls)) == (10, 40)
