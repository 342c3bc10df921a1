"""A primary that is killed among registrations: what was acknowledged is there, and everyone recovers by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from anumate.lib.redis import connect
from anumate_integration_service import DiscoveryClient, create_discovery_client
from registry.live.instances import Key
from registry.live.store import SyncStore
from tests.conftest import eventually
from tests.registry.live.nodes import Watched, watched
from tests.registry.serving import Served, serving

CLIENTS = 10
MOST = 400
BEAT = 5 / 3 * 1.1
"""The longest pause between two heartbeats of a lease of five seconds: a third of it, and a tenth more."""


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    # Two replicas: when one is promoted, the other one confirms.
    with watched(tmp_path_factory.mktemp("failover"), replicas=2) as group:
        yield group


def client_of(lane: Served, number: int) -> DiscoveryClient:
    return create_discovery_client(
        registry_url=f"http://127.0.0.1:{lane.port}",
        api_key=lane.keys["write"],
        service_name="clients",
        instance_id=f"c-{number}",
        http_port=8000 + number,
        host="127.0.0.1",
        lease_ttl=5,
        longest_retry=1.0,
    )


async def register(lane: Served, instance_id: str) -> int:
    body = {"name": "raw", "instance_id": instance_id, "lease_ttl": 60}
    body["endpoints"] = {"http": {"protocol": "http", "host": "h", "port": 80}}
    return (await lane.http.post("/v1/services/register", json=body, headers=lane.key())).status_code


async def register_until_refused(lane: Served, acknowledged: list[str], name: str) -> int:
    """The status that ended it."""
    for number in range(MOST):
        status = await register(lane, f"{name}-{number}")
        if status != 201:
            return status
        acknowledged.append(f"{name}-{number}")
    return 201


async def test_what_was_acknowledged_outlives_the_primary(servers: Watched) -> None:
    async with serving(servers.url, REGISTRY_WAIT_REPLICAS="1") as lane, AsyncExitStack() as running:
        clients = [await running.enter_async_context(client_of(lane, number)) for number in range(CLIENTS)]
        assert all(client.registered for client in clients)
        acknowledged: list[str] = []
        writers = [asyncio.create_task(register_until_refused(lane, acknowledged, f"w{each}")) for each in range(4)]
        await eventually(lambda: len(acknowledged) >= 40, what="registrations under way")
        servers.process.kill()
        assert set(await asyncio.gather(*writers)) == {503}

        await eventually(lambda: servers.named() != servers.primary, seconds=30, what="another primary")
        async with asyncio.timeout(30):
            while await register(lane, "after") not in (200, 201):
                await asyncio.sleep(0.1)
        async with asyncio.timeout(BEAT + 1):  # a second for one that is just waiting to try again
            with connect(servers.url) as redis:
                while missing(SyncStore(redis), clients):
                    await asyncio.sleep(0.1)
        with connect(servers.url) as redis:
            there = {key.id for key in SyncStore(redis).members().instances if key.service == "raw"}
        for instance_id in set(acknowledged) - there:
            path = f"/v1/services/raw/{instance_id}/heartbeat"
            assert (await lane.http.put(path, headers=lane.key())).status_code == 404
            assert await register(lane, instance_id) == 201

        everyone = {Key("default", "raw", each) for each in (*acknowledged, "after")} | keys(clients)
        await eventually(lambda: lane.node.catalog.stale_since is None, what="the catalogue to be fresh again")
        await eventually(lambda: all(lane.node.catalog.get(key) for key in everyone), what="everyone")
        answer = await lane.http.get("/v1/services", params={"service_name": "clients"}, headers=lane.key())
        assert len(answer.json()["services"]) == CLIENTS


def keys(clients: list[DiscoveryClient]) -> set[Key]:
    return {Key("default", client.service_name, client.instance_id) for client in clients}


def missing(store: SyncStore, clients: list[DiscoveryClient]) -> set[Key]:
    return keys(clients) - set(store.members().instances)
