from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from anumate_integration_service.changes import Change, Joined, Left
from anumate_integration_service.errors import AnumateError, RegistryUnavailable
from anumate_integration_service.sync import SyncDiscoveryClient
from tests.client.stand_in import StandIn, stand_in
from tests.conftest import eventually


@pytest.fixture
async def registry() -> AsyncIterator[StandIn]:
    async with stand_in() as registry:
        yield registry


def client_of(registry: StandIn, **options: Any) -> SyncDiscoveryClient:
    options = {"service_name": "orders", "http_port": 8000, "instance_id": "orders-1"} | options
    return SyncDiscoveryClient(registry_url=registry.url, **options)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "anumate discovery"]


async def test_it_does_without_a_loop_of_the_callers(registry: StandIn) -> None:
    def work() -> None:
        client = client_of(registry, capabilities=["search"])
        client.add_health_check_callback(lambda: True)
        with client:
            assert client.registered
            (found,) = client.instances("orders", capabilities=("search",))
            assert client.get_service_by_name("orders") == client.get_service_by_capability("search") == [found]
            assert client.get_services() == (found,)
            assert (client.service_name, client.instance_id, client.is_stale) == ("orders", "orders-1", False)
            assert client.age is not None
            client.start()
        client.stop()

    await asyncio.to_thread(work)
    assert registry.count("DELETE", "/orders/orders-1") == 1
    assert threads() == []


async def test_a_watch_blocks_for_each_change_until_the_client_stops(registry: StandIn) -> None:
    client = client_of(registry)
    told: list[Change] = []

    def read() -> None:
        for change in client.watch("mail"):
            told.append(change)

    await asyncio.to_thread(client.start)
    reading = asyncio.create_task(asyncio.to_thread(read))
    mail = client_of(registry, service_name="mail", instance_id="mail-1")
    await asyncio.to_thread(mail.start)
    await eventually(lambda: told)
    await asyncio.to_thread(mail.stop)
    await eventually(lambda: len(told) == 2)
    await asyncio.to_thread(client.stop)
    await reading
    assert [type(change) for change in told] == [Joined, Left]


async def test_a_required_registration_that_fails_leaves_no_thread_behind() -> None:
    client = SyncDiscoveryClient(
        registry_url="http://127.0.0.1:9", service_name="orders", http_port=8000, required=True
    )
    with pytest.raises(RegistryUnavailable):
        await asyncio.to_thread(client.start)
    assert threads() == []


async def test_a_callback_that_calls_the_client_is_told_what_is_wrong(registry: StandIn) -> None:
    told: list[BaseException] = []
    registry.refuse_with = 403

    def on_error(error: AnumateError) -> None:
        try:
            client.get_services()
        except RuntimeError as wrong:
            told.append(wrong)

    client = client_of(registry, on_error=on_error)
    await asyncio.to_thread(client.start)
    await asyncio.to_thread(client.stop)
    assert "callback of the client itself" in str(told[0])


FORKING = """
import os, sys, time
from anumate_integration_service.sync import SyncDiscoveryClient

client = SyncDiscoveryClient(registry_url=sys.argv[1], service_name="orders", http_port=int(sys.argv[2]))
client.start()
asked, say = os.pipe()
child = os.fork()
if not child:
    while client.age is None or client.age > 1000 or not client._client._watcher._tasks:
        time.sleep(0.01)
    assert not client.registered and len(client.instances("orders")) == 1
    client.stop()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.registered
client.stop()
"""


async def test_a_forked_child_has_a_thread_of_its_own(registry: StandIn) -> None:
    port = registry.url.rpartition(":")[2]  # any port that takes connections
    argv = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, registry.url, port]
    family = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.PIPE)
    _, errors = await family.communicate()
    assert (family.returncode, errors.decode()) == (0, "")
    assert registry.count("POST", "/register") == 1
    assert registry.count("DELETE", f"-{port}") == 1
