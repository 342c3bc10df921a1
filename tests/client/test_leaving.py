"""How a client leaves: in which order, when it is cancelled, and when a signal asks for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from anumate_integration_service.client import DiscoveryClient, create_discovery_client
from tests.client.stand_in import Asked, StandIn, stand_in
from tests.conftest import eventually


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


def client_of(registry: StandIn, **options: Any) -> DiscoveryClient:
    return create_discovery_client(
        registry_url=registry.url, service_name="orders", http_port=8000, instance_id="orders-1", **options
    )


def left(registry: StandIn) -> int:
    return registry.count("DELETE", "/orders/orders-1")


async def test_it_says_so_first_and_then_waits_for_requests_to_end(registry: StandIn) -> None:
    client = client_of(registry)
    await client.start()
    stopping = asyncio.create_task(client.stop(drain=60))
    await eventually(lambda: left(registry))
    assert not stopping.done()
    async with client_of(registry) as other:
        assert other.instance_id == client.instance_id
    beats = registry.count("PUT", "/heartbeat")
    await eventually(lambda: registry.count("GET", "/v1/services") >= 2)  # what ends may still look for others
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    assert registry.count("PUT", "/heartbeat") == beats


async def test_nothing_is_sent_once_it_has_stopped(registry: StandIn) -> None:
    client = client_of(registry)
    await client.start()
    await asyncio.gather(client.stop(), client.stop())
    asked = len(registry.asked)
    assert left(registry) == 1
    await client.stop()
    await client.get_services()
    assert [change async for change in client.watch("orders")] == []
    await asyncio.sleep(3 * registry.heartbeat_interval)
    assert len(registry.asked) == asked


async def test_it_can_start_again(registry: StandIn) -> None:
    client = client_of(registry)
    for _ in range(2):
        await client.start()
        assert client.registered
        await client.stop()
        assert not client.registered
    assert left(registry) == 2


async def test_a_registration_in_flight_is_let_through_before_it_leaves(
    registry: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    answer = registry._answer

    async def slowly(question: Asked) -> tuple[int, Any]:
        if question.method == "POST":
            asked.set()
            await go_on.wait()
        return await answer(question)

    client = client_of(registry)
    await client.start()
    monkeypatch.setattr(registry, "_answer", slowly)
    registry.leases.clear()
    await asked.wait()
    stopping = asyncio.create_task(client.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert registry.leases == {}
    assert left(registry) == 1


async def test_a_cancelled_stop_leaves_all_the_same(registry: StandIn) -> None:
    client = client_of(registry)
    await client.start()
    stopping = asyncio.create_task(client.stop(drain=60))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert left(registry) == 1


@pytest.mark.parametrize("how", ["nobody stops it", "it is being stopped", "it drains"])
async def test_it_leaves_when_its_loop_ends(registry: StandIn, how: str) -> None:
    async def serve() -> None:
        client = client_of(registry)
        await client.start()
        if how != "nobody stops it":
            asyncio.create_task(client.stop(drain=60))  # noqa: RUF006
            await asyncio.sleep(0)
        while how == "it drains" and "orders-1" in registry.leases:
            await asyncio.sleep(0.01)

    await asyncio.to_thread(asyncio.run, serve())
    assert registry.leases == {}
    assert left(registry) >= 1  # cut off while it waited for the answer, it says so again


async def test_a_signal_leaves_first_and_then_does_what_it_did_before(registry: StandIn) -> None:
    order: list[str] = []

    def before(number: int, frame: FrameType | None) -> None:
        order.append(f"{signal.Signals(number).name} with {left(registry)} farewell")

    kept = signal.signal(signal.SIGTERM, before)
    try:
        client = client_of(registry)
        await client.start()
        client.install_signal_handlers(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: order)
        assert order == ["SIGTERM with 1 farewell"]
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, kept)


async def test_a_second_signal_does_not_wait_for_the_drain(registry: StandIn) -> None:
    caught: list[int] = []
    kept = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        client = client_of(registry)
        await client.start()
        client.install_signal_handlers(drain=60)
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: left(registry))
        assert caught == []
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: caught)
        client._hurry.set()
        await client.stop()
    finally:
        signal.signal(signal.SIGTERM, kept)
