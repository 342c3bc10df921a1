"""Copies of requests for another service: it may do with them what it likes, the caller never notices."""

from __future__ import annotations

import pytest

from gateway.proxy import mirror
from gateway.proxy.policies import Mirror
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route


async def mirrored(world: World, policy: Mirror) -> tuple[Running, Service, Service]:
    service, shadow = await world.service(), await world.service("shadow", "s")
    world.publish(a_route(mirror=policy))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    await gateway.knows("shadow", 1)
    return gateway, service, shadow


async def test_the_copy_is_the_request_and_its_answer_is_nobodys(world: World) -> None:
    gateway, service, shadow = await mirrored(world, Mirror("shadow"))
    shadow.answers(b"HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\nwrong")
    answer = await gateway.client.post("/orders/7?a=b", content=b"some")
    assert (answer.status_code, answer.content) == (200, b"ok")
    await eventually(lambda: bool(shadow.calls and shadow.calls[0].body), what="the copy")
    assert (shadow.calls[0].head, shadow.calls[0].body) == (service.calls[0].head, service.calls[0].body)


@pytest.mark.parametrize("policy", [Mirror("shadow", sample=0.0), Mirror("shadow", body_bytes=3)])
async def test_what_the_sample_or_the_size_leaves_out_is_not_copied(world: World, policy: Mirror) -> None:
    gateway, service, shadow = await mirrored(world, policy)
    for _ in range(5):
        await gateway.client.post("/orders", content=b"some")
    assert len(service.calls) == 5
    assert not gateway.app.attempts._mirrors._under_way
    assert not shadow.calls


async def test_a_mirror_that_hangs_costs_the_caller_nothing_and_the_gateway_little(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MOST", 3)
    gateway, _, shadow = await mirrored(world, Mirror("shadow"))

    async def hang(call: Call) -> None:
        await call.reader.read()

    shadow.handler = hang
    for _ in range(10):
        assert (await gateway.get()).status_code == 200
    assert len(gateway.app.attempts._mirrors._under_way) == 3


async def test_a_mirror_that_is_not_there_is_no_matter(world: World) -> None:
    await world.service()
    world.publish(a_route(mirror=Mirror("nobody")))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get()).status_code == 200
