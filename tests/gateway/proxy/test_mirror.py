"""Copies of requests for another service: it may do with them what it likes, the caller never notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

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


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("framing", ["content-length: 9", "transfer-encoding: chunked"])
@pytest.mark.parametrize("pieces", [(b"some", b"thing"), (b"so", b"meth", b"ing")])
@pytest.mark.parametrize("most", [9, 8])
async def test_a_body_in_several_segments_is_copied_whole_or_not_at_all(
    world: World, method: str, framing: str, pieces: tuple[bytes, ...], most: int
) -> None:
    gateway, service, shadow = await mirrored(world, Mirror("shadow", body_bytes=most))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    arrived = bytearray()

    async def count(call: Call) -> None:
        while len(arrived) < 9 or (framing.endswith("chunked") and not arrived.endswith(b"0\r\n\r\n")):
            arrived.extend(await call.reader.read(100))
        await call.answer()

    service.handler = count
    head = f"{method} /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n{framing}\r\n\r\n"
    writer.write(head.encode())
    for piece in pieces:
        assert not shadow.calls
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing.endswith("chunked") else piece)
        await eventually(lambda piece=piece: piece in arrived, what="the piece")
    if framing.endswith("chunked"):
        writer.write(b"0\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    if most == 9:
        await eventually(lambda: bool(shadow.calls and shadow.calls[0].body), what="the copy")
        assert (shadow.calls[0].head, shadow.calls[0].body) == (service.calls[0].head, b"something")
    else:
        assert not gateway.app.attempts._mirrors._under_way
        assert not shadow.calls
    writer.close()


async def test_a_body_that_was_sent_again_is_copied_once(world: World) -> None:
    service, other, shadow = await world.service(), await world.service(id="b"), await world.service("shadow", "s")
    world.publish(a_route(mirror=Mirror("shadow"), retries=1))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    await gateway.knows("shadow", 1)

    async def hang_up_once(call: Call) -> None:
        await call.read_body()
        if len(service.calls) + len(other.calls) == 1:
            call.writer.close()
        else:
            await call.answer()

    service.handler = other.handler = hang_up_once

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"so", b"meth", b"ing"):
            yield piece
            await asyncio.sleep(0.01)  # a segment of its own

    assert (await gateway.client.put("/orders", content=pieces())).status_code == 200
    assert len(service.calls) + len(other.calls) == 2
    await eventually(lambda: bool(shadow.calls and shadow.calls[0].body), what="the copy")
    assert [call.body for call in shadow.calls] == [b"something"]


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
