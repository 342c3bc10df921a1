"""How much may be under way at once: more is refused with 503, at once and in words."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from gateway.proxy import connections
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


async def one_more(gateway: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", gateway.port)


async def last_words(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the gateway closes."""
    async with asyncio.timeout(5):
        return await reader.read()


async def test_one_connection_too_many_is_told_so_and_closed_while_the_others_are_served(
    world: World, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await world.gateway(gateway_max_connections=2)
    await gateway.knows("orders", 1)
    ask = f"GET /orders HTTP/1.1\r\nHost: h\r\nX-API-Key: {world.key}\r\n\r\n".encode()
    there = [await one_more(gateway) for _ in range(2)]
    await eventually(lambda: len(gateway.app.connections.open) == 2, what="both to be there")
    for _ in range(2):
        reader, writer = await one_more(gateway)
        writer.write(ask)
        head, _, body = (await last_words(reader)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 "), head
        assert b"\r\nretry-after: 1\r\n" in head
        assert head.endswith(b"\r\nconnection: close")
        assert json.loads(body)["code"] == "overloaded"
        writer.close()
    assert not service.calls
    assert len([line for line in caplog.messages if line.startswith("turned away")]) == 1

    for reader, writer in there:
        writer.write(ask)
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
    there.pop()[1].close()
    await eventually(lambda: len(gateway.app.connections.open) == 1, what="one to be gone")
    answer = await gateway.get("/-/metrics")
    (line,) = [line for line in answer.text.splitlines() if line.startswith("anumate_gateway_worker_connections{")]
    assert line.endswith(" 2")
    there.pop()[1].close()


async def test_only_a_few_may_stay_to_read_why_they_were_turned_away(
    world: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGERING", 1)
    gateway = await world.gateway(gateway_max_connections=1)
    there = [await one_more(gateway) for _ in range(4)]
    for reader, _ in there[1:]:
        assert (await last_words(reader)).startswith(b"HTTP/1.1 503 ")
    await eventually(lambda: len(gateway.connections) == 2, what="those that nobody waits for to be gone")
    for _, writer in there:
        writer.close()
    await eventually(lambda: not gateway.connections, what="all to be gone")
    assert (await gateway.get("/-/livez")).status_code == 200


@pytest.mark.parametrize(
    ("most", "files", "fitting"),
    [(10_000, 1_048_576, 10_000), (10_000, 1024, 448), (0, 1024, 448), (0, None, 0), (5, 64, 1)],
)
def test_no_more_connections_are_let_in_than_there_may_be_open_files(
    monkeypatch: pytest.MonkeyPatch, most: int, files: int | None, fitting: int
) -> None:
    monkeypatch.setattr(connections, "raise_open_files", lambda: files)
    held = connections.Connections(most)
    held.fit()
    assert held.most == fitting


def test_a_process_raises_its_own_limit_of_open_files() -> None:
    script = """if True:
        import resource
        from gateway.proxy.connections import raise_open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert said == "200 200 200\n"
