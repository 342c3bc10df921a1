"""Good instances among misbehaving ones, on real sockets, under many requests at once."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
import pytest

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy import table as routing
from gateway.proxy.policies import Outlier, Retry, Timeouts
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Running, World, a_route

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
CODES = {"upstream_timeout", "upstream_closed", "upstream_malformed", "upstream_connect_failed", "no_healthy_instance"}


def reset(call: Call) -> None:
    """Close with a RST, as a process that crashed does."""
    sock = call.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call.writer.transport.abort()


async def resets_at_once(call: Call) -> None:
    reset(call)


async def resets_within_the_head(call: Call) -> None:
    await call.answer(b"HTTP/1.1 200 OK\r\ncontent-le")
    reset(call)


async def closes_at_once(call: Call) -> None:
    call.writer.close()


async def half_closes(call: Call) -> None:
    call.writer.write_eof()
    await call.reader.read()


async def keeps_silent(call: Call) -> None:
    await call.reader.read()


async def talks_garbage(call: Call) -> None:
    await call.answer(random.Random(1).randbytes(5000))


async def floods_with_fields(call: Call) -> None:
    await call.answer(b"HTTP/1.1 200 OK\r\n")
    while not call.writer.is_closing():
        await call.answer(b"x: %b\r\n" % (b"y" * 1000))
        await asyncio.sleep(0)  # the gateway runs in the same loop


async def floods_with_interim_answers(call: Call) -> None:
    while not call.writer.is_closing():
        await call.answer(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0)


BEFORE_THE_ANSWER: list[Callable[[Call], Awaitable[None]]] = [
    resets_at_once,
    resets_within_the_head,
    closes_at_once,
    half_closes,
    keeps_silent,
    talks_garbage,
    floods_with_fields,
    floods_with_interim_answers,
]


async def truncates(call: Call) -> None:
    await call.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome")
    call.writer.close()


async def breaks_its_chunks(call: Call) -> None:
    await call.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n")


async def sends_more_than_it_said(call: Call) -> None:
    await call.answer(GOOD + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")


@pytest.fixture
async def chaos(world: World, caplog: pytest.LogCaptureFixture) -> Running:
    caplog.set_level(logging.ERROR)
    retry = Retry(on=("connect", "closed", "timeout", "status"), budget_minimum=1000.0, backoff=0.001)
    timeouts = Timeouts(idle=0.5)
    route = a_route(auth_required=False, timeout_seconds=0.5, retries=4, retry=retry, timeouts=timeouts)
    outlier = Outlier(consecutive_failures=2, base_seconds=600.0, max_seconds=600.0, max_share=0.9)
    upstream = routing.Upstream("default", "orders", breaker=BreakerPolicy(metrics_only=True), outlier=outlier)
    world.publish(route, upstreams=(upstream,))
    for number in range(3):
        good = await world.service(id=f"good-{number}")
        good.answers(GOOD)
    return await world.gateway()


async def ask(gateway: Running, number: int) -> str:
    """What became of a request: what it was answered, or `broken off`."""
    try:
        answer = await gateway.get(f"/orders/{number}")
    except httpx.TransportError:
        return "broken off"
    return answer.text if answer.status_code == 200 else str(answer.json()["code"])


async def all_over(gateway: Running, caplog: pytest.LogCaptureFixture) -> None:
    await eventually(lambda: gateway.app.admission.whole.inside == 0, what="all requests to be over")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_instances_that_fail_before_they_answer_cost_nobody_more_than_a_retry(
    world: World, chaos: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for handler in BEFORE_THE_ANSWER:
        bad = await world.service(id=handler.__name__)
        bad.handler = handler
    await chaos.knows("orders", 3 + len(BEFORE_THE_ANSWER))
    seen: Counter[str] = Counter()
    for first in range(0, 300, 20):
        seen.update(await asyncio.gather(*(ask(chaos, number) for number in range(first, first + 20))))
    assert set(seen) <= {"good", *CODES}, seen
    # One that hangs or floods is left out after two requests, so failures end instead of going on.
    late: Counter[str] = Counter(await asyncio.gather(*(ask(chaos, number) for number in range(20))))
    assert late == {"good": 20}, (late, seen)
    assert seen["good"] >= 280, seen
    await all_over(chaos, caplog)


async def test_an_answer_that_breaks_off_is_broken_off_and_its_instance_left_out(
    world: World, chaos: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for handler in (truncates, breaks_its_chunks):
        bad = await world.service(id=handler.__name__)
        bad.handler = handler
    await chaos.knows("orders", 5)
    seen: Counter[str] = Counter()
    for _ in range(20):
        seen.update(await asyncio.gather(*(ask(chaos, number) for number in range(5))))
    assert set(seen) == {"good", "broken off"}, seen
    assert seen["broken off"] <= 20, seen
    late: Counter[str] = Counter([await ask(chaos, number) for number in range(20)])
    assert late == {"good": 20}
    await all_over(chaos, caplog)


async def test_what_follows_an_answer_reaches_nobody(
    world: World, chaos: Running, caplog: pytest.LogCaptureFixture
) -> None:
    bad = await world.service(id="bad")
    bad.handler = sends_more_than_it_said
    await chaos.knows("orders", 4)
    seen: Counter[str] = Counter()
    for _ in range(20):
        seen.update(await asyncio.gather(*(ask(chaos, number) for number in range(5))))
    assert seen == {"good": 100}
    await all_over(chaos, caplog)


async def test_an_endless_answer_goes_no_faster_than_its_client_and_ends_with_it(world: World, chaos: Running) -> None:
    sent = 0

    async def floods(call: Call) -> None:
        nonlocal sent
        await call.answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not call.writer.is_closing():
            await call.answer(b"10000\r\n%b\r\n" % bytes(65536))
            sent += 65536

    flood = await world.service("floods")
    flood.handler = floods
    world.publish(a_route("floods", service="floods", auth_required=False))
    await chaos.knows("floods", 1)
    async with chaos.client.stream("GET", "/floods") as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        before = -1
        while before != sent:  # until it is made to wait
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 32 * 1024 * 1024  # what the sockets on the way and our own bound hold
    await eventually(lambda: flood.open == 0, what="the instance's connection to end")
