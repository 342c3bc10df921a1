"""A request that is known by its bytes is judged by keys and table as they are now."""

from __future__ import annotations

import asyncio

from gateway.proxy.policies import HeaderEdits, Pair, WebSockets
from gateway.proxy.table import RateLimit
from registry.live import keys as api_keys
from tests.conftest import eventually
from tests.gateway.proxy.conftest import PEPPER, Call, Running, Service, World, a_route
from tests.gateway.proxy.wires import Connect, at_rest, connect, gateway

__all__ = ["connect", "gateway"]  # fixtures


async def test_a_request_known_by_its_bytes_says_its_length_where_it_waits_for_a_token(
    connect: Connect, gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(rate_limits=("few",)), rate_limits=(RateLimit("default", "few", 1000, 1000, "key"),))
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    while not gateway.app.direct._memory._known:
        assert len(service.calls) < 50
        wire.ask("POST", "/orders", "Content-Length: 0")
        assert (await wire.answer())[0] == 200
    for bucket in gateway.app.limiter._buckets.values():
        bucket.ends = 0.0  # its lease is over
    wire.ask("POST", "/orders", "Content-Length: 0")
    assert (await wire.answer())[0] == 200
    assert {call.one("content-length") for call in service.calls} == {"0"}


async def test_a_connection_of_common_requests_may_become_a_websocket(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    world.publish(a_route(websockets=WebSockets(enabled=True)))
    await gateway.serves(world._revision)
    wire = await connect(gateway)
    for _ in range(3):
        wire.ask()
        assert (await wire.answer())[0] == 200

    async def handler(call: Call) -> None:
        accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        head = f"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        await call.answer(head.encode() + b"\x81\x02hi")
        await call.reader.read()

    service.handler = handler
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    wire.ask("GET", "/orders", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key)
    assert (await wire.answer())[0] == 101
    assert await asyncio.wait_for(wire.reader.readexactly(4), 5) == b"\x81\x02hi"
    wire.writer.transport.abort()
    await eventually(lambda: at_rest(gateway), what="rest")


async def test_a_revoked_key_is_refused_on_a_connection_that_it_was_good_on(
    connect: Connect, world: World, gateway: Running
) -> None:
    wire = await connect(gateway)
    for _ in range(4):
        wire.ask()
        assert (await wire.answer())[0] == 200
    world.publish_keys()
    async with asyncio.timeout(1):
        status = 200
        while status == 200:
            wire.ask()
            status = (await wire.answer())[0]
    assert status == 401


async def test_two_keys_stay_two_callers(connect: Connect, world: World, gateway: Running, service: Service) -> None:
    id, key = api_keys.make()
    digests = [api_keys.secret_hash(PEPPER, each) for each in (world.key, key)]
    scopes = ("gateway:invoke",)
    world.publish_keys(
        api_keys.KeyRecord(world.key_id, "first", "default", digests[0], scopes),
        api_keys.KeyRecord(id, "second", "default", digests[1], scopes),
    )
    await eventually(lambda: len(gateway.app.node.keys._records or ()) == 2, what="the keys")
    wire = await connect(gateway)
    keys = {world.key: world.key_id, key: id}
    asked = [*keys] * 5
    for each in asked:
        wire._key = each
        wire.ask()
        await wire.answer()
    assert [call.one("x-consumer-id") for call in service.calls] == [keys[each] for each in asked]
    assert len({call.one("x-request-id") for call in service.calls}) == len(asked)


async def test_a_request_known_by_its_bytes_goes_where_the_table_says_now(
    connect: Connect, world: World, gateway: Running, service: Service
) -> None:
    other = await world.service("others")
    wire = await connect(gateway)
    for _ in range(3):
        wire.ask()
        await wire.answer()
    world.publish(a_route(service="others", request_headers=HeaderEdits(set=(Pair("X-New", "1"),))))
    await gateway.serves(world._revision)
    await gateway.knows("others", 1)
    wire.ask()
    await wire.answer()
    assert (len(service.calls), len(other.calls)) == (3, 1)
    assert other.calls[0].one("x-new") == "1"
