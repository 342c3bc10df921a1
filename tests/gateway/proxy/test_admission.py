"""How much may be under way at once: more is refused with 503, at once and in words."""

from __future__ import annotations

import asyncio

from gateway.proxy.policies import Limits
from gateway.proxy.table import Upstream
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route


class Held:
    """Requests that a service keeps until it is told to answer."""

    def __init__(self, gateway: Running, service: Service) -> None:
        self._gateway = gateway
        self._service = service
        self._go = asyncio.Event()
        self._requests: list[asyncio.Task[object]] = []
        service.handler = self._wait

    async def _wait(self, call: Call) -> None:
        await self._go.wait()
        await call.answer()

    async def begin(self, count: int) -> None:
        self._requests = [asyncio.create_task(self._gateway.get()) for _ in range(count)]
        await eventually(lambda: len(self._service.calls) == count, what=f"{count} requests to be there")

    async def end(self) -> None:
        self._go.set()
        await asyncio.gather(*self._requests)


async def refused(gateway: Running) -> str:
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    return str(answer.json()["detail"])


async def test_a_route_takes_so_many_requests_at_once(world: World) -> None:
    service = await world.service()
    world.publish(a_route(limits=Limits(concurrent=2)), a_route("other", path="/other"))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    held = Held(gateway, service)
    await held.begin(2)
    assert await refused(gateway) == "Route orders takes 2 requests at once."
    other = asyncio.create_task(gateway.get("/other"))
    await held.end()
    assert (await other).status_code == 200
    assert (await gateway.get()).status_code == 200


async def test_a_service_takes_so_many_whatever_the_route_and_a_publish_forgets_nobody(world: World) -> None:
    service = await world.service()
    routes, upstreams = (a_route(), a_route("other", path="/other")), (Upstream("default", "orders", concurrent=2),)
    world.publish(*routes, upstreams=upstreams)
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    held = Held(gateway, service)
    await held.begin(2)
    world.publish(*routes, upstreams=upstreams)
    await gateway.serves(world._revision)
    assert await refused(gateway) == "Service orders takes 2 requests at once."
    assert (await gateway.get("/other")).status_code == 503
    await held.end()
    assert (await gateway.get("/other")).status_code == 200


async def test_the_gateway_sheds_load_before_it_falls_over_and_still_says_how_it_is(world: World) -> None:
    service = await world.service()
    world.publish(a_route())
    gateway = await world.gateway(gateway_max_concurrent=3)
    await gateway.knows("orders", 1)
    held = Held(gateway, service)
    await held.begin(3)
    assert "3 requests at once" in await refused(gateway)
    assert (await gateway.get("/-/readyz")).status_code == 200
    await held.end()
    assert (await gateway.get()).status_code == 200
    assert gateway.app.admission.whole.inside == 0
