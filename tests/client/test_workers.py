"""Several workers behind one port are one instance: one of them speaks for it, and a fork changes nothing of that."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from anumate_integration_service import seat as seats
from anumate_integration_service.client import DiscoveryClient, create_discovery_client
from anumate_integration_service.seat import Seat
from tests.client.stand_in import StandIn, stand_in
from tests.conftest import eventually

WORKER = """
import asyncio, sys
from anumate_integration_service import create_discovery_client

async def main():
    client = create_discovery_client(
        registry_url=sys.argv[1],
        service_name="orders",
        http_port=8000,
        instance_id="orders-1",
        metadata={"n": sys.argv[2]},
    )
    async with client:
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anumate_integration_service.lease.SEAT_PAUSE", 0.05)


def client_of(registry: StandIn, **options: Any) -> DiscoveryClient:
    return create_discovery_client(
        registry_url=registry.url, service_name="orders", http_port=8000, instance_id="orders-1", **options
    )


def worker(registry: StandIn, number: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", WORKER, registry.url, str(number)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE)


def test_one_of_many_has_the_seat_and_another_takes_it_when_it_leaves(tmp_path: Path) -> None:
    first, second = Seat("orders", directory=tmp_path), Seat("orders", directory=tmp_path)
    other = Seat("mail", directory=tmp_path)
    assert (first.take(), second.take(), other.take()) == (True, False, True)
    assert not first.leave()
    assert second.take()
    assert second.leave()
    second.release()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    other.release()


def test_while_the_last_one_says_goodbye_nobody_begins(tmp_path: Path) -> None:
    last, newcomer = Seat("orders", directory=tmp_path), Seat("orders", directory=tmp_path)
    last.take()
    assert last.leave()
    assert not newcomer.take()
    last.release()
    assert newcomer.take()
    newcomer.release()


def test_of_two_that_wait_the_last_to_leave_knows_it(tmp_path: Path) -> None:
    speaking, waiting = Seat("orders", directory=tmp_path), Seat("orders", directory=tmp_path)
    speaking.take()
    waiting.take()
    assert [speaking.leave(), waiting.leave()] == [False, True]
    waiting.release()


def test_where_workers_cannot_agree_each_speaks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seat = Seat("orders", directory=tmp_path / "away")
    assert seat.take()
    assert seat.leave()
    assert "cannot agree" in caplog.text


def test_where_there_are_no_such_locks_each_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "fcntl", None)
    assert Seat("orders", directory=tmp_path).take()
    assert not list(tmp_path.iterdir())


async def test_one_of_several_workers_beats_and_all_of_them_watch(registry: StandIn) -> None:
    async with client_of(registry) as first, client_of(registry) as second:
        assert (first.registered, second.registered) == (True, False)
        assert len(second.instances("orders")) == 1
        await first.stop()
        await eventually(lambda: second.registered)
        assert registry.count("DELETE", "/orders/orders-1") == 0
    assert registry.count("DELETE", "/orders/orders-1") == 1


async def test_a_worker_takes_over_from_one_that_was_killed(registry: StandIn) -> None:
    with worker(registry, 1) as first:
        await eventually(lambda: registry.leases)
        with worker(registry, 2) as second:
            await eventually(lambda: registry.count("GET", "/v1/services") >= 3)
            assert registry.leases["orders-1"]["metadata"] == {"n": "1"}
            first.kill()
            await eventually(lambda: registry.leases["orders-1"]["metadata"] == {"n": "2"})
            await asyncio.to_thread(second.communicate)
    assert registry.leases == {}
    assert registry.count("DELETE", "/orders/orders-1") == 1


FORKING = """
import asyncio, os, sys
from anumate_integration_service import create_discovery_client

client = create_discovery_client(
    registry_url=sys.argv[1], service_name="orders", http_port=8000, instance_id="orders-1"
)

async def serve(say, until):
    async with client:
        os.write(say, b"1" if client.registered else b"0")
        assert len(client.instances("orders")) == 1
        await asyncio.to_thread(os.read, until, 1)

async def parent():
    async with client:
        await asyncio.sleep(0)
        await asyncio.to_thread(family)

def family():
    asked, say = os.pipe()
    until, go_on = os.pipe()
    child = os.fork()
    if not child:
        try:
            assert not client.registered and len(client.instances("orders")) == 1
            asyncio.run(serve(say, until))
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.read(asked, 1) == b"0"
    os.write(go_on, b"x")
    assert os.waitpid(child, 0)[1] == 0

asyncio.run(parent())
"""


async def test_a_forked_child_watches_by_itself_and_leaves_the_lease_to_its_parent(registry: StandIn) -> None:
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, registry.url]
    family = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.PIPE)
    _, errors = await family.communicate()
    assert (family.returncode, errors.decode()) == (0, "")
    assert registry.count("POST", "/register") == 1
    assert registry.count("DELETE", "/orders/orders-1") == 1
