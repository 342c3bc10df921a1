"""Two hundred clients of a real registry that is killed for a minute, forgets everything, and comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from anumate.stack.preflight import free_port
from anumate_integration_service import AnumateError, DiscoveryClient, create_discovery_client
from tests import environment
from tests.conftest import eventually, wait_until
from tests.registry.serving import PEPPER, publish_keys

CLIENTS = 200
OUTAGE = 60.0


@contextmanager
def web(home: Path, redis_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Port 8090's application in a process of its own, killed at the end."""
    argv = [sys.executable, "-m", "uvicorn", "anumate_integration_service.app:app", f"--port={port}"]
    environ = {
        **environment.BARE,
        "ANUMATE_HOME": str(home),
        "REDIS_URL": redis_url,
        "API_KEY_PEPPER": PEPPER,
    }
    with subprocess.Popen([*argv, "--log-level=critical"], env=environ) as process:
        try:
            wait_until(lambda: _lives(port), seconds=30, what="the registry")
            yield process
        finally:
            process.kill()


def _lives(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200
    except httpx.TransportError:
        return False


def clients_of(url: str, key: str, errors: list[AnumateError]) -> list[DiscoveryClient]:
    return [
        create_discovery_client(
            registry_url=url,
            api_key=key,
            service_name=f"service-{number % 10}",
            instance_id=f"instance-{number}",
            http_port=8000,
            host="127.0.0.1",
            lease_ttl=5,
            longest_retry=1.0,
            on_error=errors.append,
        )
        for number in range(CLIENTS)
    ]


@pytest.mark.timeout(200)
async def test_an_outage_of_the_registry_costs_no_read_and_no_registration(
    tmp_path: Path, redis_url: str, store: redis.Redis
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    errors: list[AnumateError] = []
    keys = publish_keys(redis_url)
    with web(tmp_path, redis_url, port) as registry:
        clients = clients_of(url, keys["write"], errors)
        await asyncio.gather(*(client.start() for client in clients))
        await eventually(lambda: all(len(client._catalogue.instances) == CLIENTS for client in clients), seconds=40)
        registry.kill()

    ends = time.monotonic() + OUTAGE
    before = clients[0].instances("service-3")
    while time.monotonic() < ends:
        for number, client in enumerate(clients):
            assert len(client.instances(f"service-{number % 10}")) == CLIENTS // 10
        await asyncio.sleep(0.05)  # leaves the loop to their retries
    assert all(client._keeper.failures for client in clients)
    assert clients[0].instances("service-3") is before

    for name in store.scan_iter("anumate:*"):
        if store.type(name) != b"hash" or b"keys:body" not in store.hkeys(name):
            store.delete(name)  # it comes back knowing nothing but its keys
    with web(tmp_path, redis_url, port):
        await eventually(lambda: len(_known(url, keys["write"])) == CLIENTS, seconds=40)
        await eventually(lambda: all(not client._keeper.failures for client in clients), seconds=30)
        await asyncio.gather(*(client.stop() for client in clients))
        # Who could not say in time that it leaves has a lease that ends by itself.
        await eventually(lambda: _known(url, keys["write"]) == set(), seconds=15)
    assert errors == []


def _known(url: str, key: str) -> set[str]:
    answer = httpx.get(f"{url}/v1/services", headers={"X-API-Key": key})
    return {each["instance_id"] for each in answer.json().get("services", ())}
