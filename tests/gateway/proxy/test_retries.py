"""A second try: only where it is safe, only as the route says, and never more than the budget pays for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.proxy.policies import Limits, Retry, Timeouts
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, Service, World, a_route

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
ON_STATUS = Retry(on=("connect", "closed", "status"), backoff=0.0, backoff_limit=0.0)


async def hang_up(call: Call) -> None:
    """Read the request and close without an answer."""
    await call.read_body()
    call.writer.close()


async def pair(world: World, **fields: Any) -> tuple[Running, Service, Service]:
    """A gateway before two instances, of which the first comes first."""
    first, second = await world.service(id="a"), await world.service(id="b")
    world.publish(a_route(**fields))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    return gateway, first, second


async def test_a_safe_request_whose_instance_hangs_up_is_tried_on_another(world: World) -> None:
    gateway, first, second = await pair(world)
    first.handler = second.handler = hang_up
    assert (await gateway.get()).status_code == 502
    assert (len(first.calls), len(second.calls)) == (1, 1)


async def test_a_request_that_may_have_had_an_effect_is_not_repeated(world: World) -> None:
    gateway, first, second = await pair(world)
    first.handler = second.handler = hang_up
    assert (await gateway.client.post("/orders", content=b"x")).status_code == 502
    assert len(first.calls) + len(second.calls) == 1


async def test_a_route_may_declare_its_posts_repeatable(world: World) -> None:
    gateway, first, second = await pair(world, retry=Retry(methods=("POST",)))
    first.handler = hang_up
    for _ in range(2):
        assert (await gateway.client.post("/orders", content=b"x")).status_code == 200
    assert [call.body for call in second.calls] == [b"x", b"x"]
    assert (await gateway.get()).status_code in (200, 502)
    first.handler = second.handler = hang_up
    assert (await gateway.get()).status_code == 502  # a GET is not on the route's list


async def test_a_status_is_tried_elsewhere_where_the_route_says_so(world: World) -> None:
    gateway, first, second = await pair(world, retry=ON_STATUS)
    first.answers(UNAVAILABLE)
    assert [(await gateway.get()).status_code for _ in range(4)] == [200] * 4
    assert first.calls
    assert len(second.calls) == 4


async def test_when_all_refuse_the_last_ones_answer_is_passed_on(world: World) -> None:
    gateway, first, second = await pair(world, retry=ON_STATUS)
    first.answers(UNAVAILABLE)
    second.answers(UNAVAILABLE)
    answer = await gateway.get()
    assert (answer.status_code, answer.content) == (503, b"busy")
    assert (len(first.calls), len(second.calls)) == (1, 1)


async def test_by_itself_a_status_is_an_answer(world: World) -> None:
    gateway, first, second = await pair(world)
    first.answers(UNAVAILABLE)
    second.answers(UNAVAILABLE)
    assert (await gateway.get()).content == b"busy"
    assert len(first.calls) + len(second.calls) == 1


@pytest.mark.parametrize("retry_after", [b"1", b"Fri, 31 Dec 2027 23:59:59 GMT"])
async def test_an_instance_that_asks_for_a_longer_pause_than_the_policy_has_is_not_pressed(
    world: World, retry_after: bytes
) -> None:
    gateway, first, second = await pair(world, retry=ON_STATUS)
    slow_down = UNAVAILABLE.replace(b"content-length", b"retry-after: %b\r\ncontent-length" % retry_after)
    first.answers(slow_down)
    second.answers(slow_down)
    answer = await gateway.get()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, retry_after.decode())
    assert len(first.calls) + len(second.calls) == 1


async def test_a_route_may_have_no_second_try(world: World) -> None:
    gateway, first, second = await pair(world, retries=0)
    first.handler = second.handler = hang_up
    assert (await gateway.get()).status_code == 502
    assert len(first.calls) + len(second.calls) == 1


async def test_a_reason_that_is_not_on_the_list_is_final(world: World) -> None:
    gateway, first, second = await pair(world, retry=Retry(on=("connect",)))
    first.handler = second.handler = hang_up
    assert (await gateway.get()).status_code == 502
    assert len(first.calls) + len(second.calls) == 1


async def test_the_budget_bounds_what_retries_add(world: World) -> None:
    gateway, first, second = await pair(world, retry=Retry(budget=0.1, budget_minimum=0.1, backoff=0, backoff_limit=0))
    first.handler = second.handler = hang_up
    for _ in range(20):
        # The breaker would end it sooner.
        for action in ("close",):
            gateway.app.guard._breakers.clear()
            assert (await gateway.get()).status_code == 502, action
    # One a second's tenth for ten seconds is one, and a tenth of twenty requests is two.
    assert 20 + 1 <= len(first.calls) + len(second.calls) <= 20 + 3


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def test_a_small_body_is_kept_and_sent_again_whole(world: World) -> None:
    gateway, first, second = await pair(world, retry=Retry(backoff=0, backoff_limit=0))
    first.handler = hang_up
    pieces = [bytes([letter]) * 9000 for letter in b"abcdef"]
    for _ in range(4):
        answer = await gateway.client.put("/orders", content=body(*pieces))
        assert answer.status_code == 200
    assert first.calls
    assert {call.body for call in second.calls} == {b"".join(pieces)}


async def test_a_body_over_the_limit_is_not_kept(world: World) -> None:
    gateway, first, second = await pair(world, retry=Retry(body_bytes=20_000, backoff=0, backoff_limit=0))
    first.handler = second.handler = hang_up
    assert (await gateway.client.put("/orders", content=body(*[bytes(9000)] * 6))).status_code == 502
    assert len(first.calls) + len(second.calls) == 1


async def test_no_more_than_the_route_takes_is_read_of_a_body(world: World) -> None:
    gateway, first, second = await pair(world, limits=Limits(body_bytes=10_000))
    for content in (bytes(10_001), body(*[bytes(4000)] * 3)):
        answer = await gateway.client.post("/orders", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert answer.headers["connection"] == "close"
    assert (await gateway.client.post("/orders", content=bytes(10_000))).status_code == 200
    assert not [call for call in (*first.calls, *second.calls) if len(call.body) > 10_000]


async def test_the_time_for_a_request_as_a_whole_ends_it_wherever_it_is(world: World) -> None:
    gateway, first, second = await pair(world, timeouts=Timeouts(total=0.2), retry=Retry(on=("timeout",)))

    async def trickle(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        await call.reader.read()

    async def silent(call: Call) -> None:
        await call.reader.read()

    first.handler = second.handler = silent
    answer = await gateway.get()
    assert (answer.status_code, answer.json()["code"]) == (504, "upstream_timeout")
    first.handler = second.handler = trickle
    assert b"some" in await gateway.raw(
        b"GET /orders HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n\r\n" % world.key.encode()
    )
    await eventually(lambda: first.open + second.open == 0, what="the connections to be closed")
