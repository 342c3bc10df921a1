"""The live state on a cluster of three servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from anumate.lib.redis import connect, connect_async
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.ops import EPOCH
from registry.live.sections import publish
from registry.live.store import AsyncStore, SyncStore
from registry.models import Instance
from registry.services import projection
from registry.services.sections import publish_sections
from tests.api import tenant
from tests.conftest import eventually
from tests.registry.live.nodes import cluster
from tests.registry.serving import Served, publish_keys, serving

KEYS = [Key(tenant, service, str(number)) for tenant in ("a", "b") for service in ("x", "y") for number in range(5)]
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "localhost", 8000)}, lease_ttl=30)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster")) as ports:
        yield f"redis+cluster://127.0.0.1:{ports[-1]}"


@pytest.fixture
def url(servers: str) -> str:
    """The cluster's address; it is empty."""
    with connect(servers) as client:
        client.flushall()
    return servers


def test_a_thread_registers_beats_reads_and_leaves(url: str) -> None:
    client = connect(url)
    try:
        store = SyncStore(client)
        for key in KEYS:
            assert store.register(key, DOCUMENT).outcome == "created"
            assert store.heartbeat(key) is not None
        store.put_fact(KEYS[0], "probe", Fact("healthy"))
        known = store.snapshot().known
        assert known.keys() == set(KEYS)
        assert known[KEYS[0]].facts["probe"].value == "healthy"
        assert {change.key for change in store.changes(0)} == set(KEYS)
        for key in KEYS:
            assert store.deregister(key) is not None
        assert store.members().instances == []
    finally:
        client.close()


async def test_a_loop_registers_beats_reads_and_leaves(url: str) -> None:
    store = AsyncStore(connect_async(url, read_timeout=None))
    try:
        for key in KEYS:
            assert (await store.register(key, DOCUMENT)).outcome == "created"
            assert await store.heartbeat(key) is not None
        assert (await store.snapshot()).known.keys() >= set(KEYS)
        assert (await store.leases()).keys() == {str(key) for key in KEYS}
        for key in KEYS:
            assert await store.deregister(key) is not None
    finally:
        await store.close()


async def discover(lane: Served, **query: Any) -> dict[str, Any]:
    found = await lane.http.get("/v1/services", params={"service_name": "orders", **query}, headers=lane.key("read"))
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


async def test_a_lane_serves_what_it_and_others_write(url: str) -> None:
    body = {"name": "orders", "instance_id": "a", "endpoints": {"http": {"protocol": "http", "host": "h", "port": 80}}}
    b = Key("default", "orders", "b")
    async with serving(url) as lane:
        assert (await lane.http.post("/v1/services/register", json=body, headers=lane.key())).status_code == 201
        before = await discover(lane)
        assert [item["instance_id"] for item in before["services"]] == ["a"]
        with connect(url) as client:
            waiting = asyncio.create_task(discover(lane, index=before["index"], wait="10s"))
            SyncStore(client).register(b, DOCUMENT)
            assert {item["instance_id"] for item in (await waiting)["services"]} == {"a", "b"}
            SyncStore(client).put_fact(b, "probe", Fact("unhealthy"))
            await eventually(lambda: lane.node.catalog.instances("default", "orders")[-1].health == "unhealthy")
            SyncStore(client).deregister(b)
        await eventually(lambda: lane.node.catalog.get(b) is None)
        beat = await lane.http.put("/v1/services/orders/a/heartbeat", headers=lane.key())
        assert beat.status_code == 200
        assert (await lane.http.delete("/v1/services/orders/a", headers=lane.key())).status_code == 204
        assert lane.node.catalog.stale_since is None


async def test_a_lapsed_lease_is_swept_and_the_catalogue_hears_of_it(url: str) -> None:
    late = Key("default", "late", "l")
    async with serving(url) as lane:
        with connect(url) as client:
            store = SyncStore(client)
            store.register(late, DOCUMENT)
            await eventually(lambda: lane.node.catalog.get(late) is not None)
            now = client.time(target_nodes=client.get_node_from_key(EPOCH))[0]
            for second in range(1, 70):  # lane and sweeper at work all the while
                store.stamp(now=now + second)
                store.sweep(now=now + second)
            assert late not in store.members().instances
        await eventually(lambda: lane.node.catalog.get(late) is None)


async def test_a_published_section_reaches_whoever_follows_at_once(url: str) -> None:
    keys = publish_keys(url)
    async with serving(url, keys) as lane:
        seen: list[bytes] = []
        lane.node.on_section("tenants", seen.append)
        with connect(url) as client:
            publish(client, "tenants", origin="test", revision=2, body=b'{"tenants":[]}')
        await eventually(lambda: seen == [b'{"tenants":[]}'])
        await eventually(lambda: lane.node.keys.tenant("default") is None)


@pytest.mark.django_db
def test_the_projection_and_the_sections_go_through_a_cluster(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_last_full", float("-inf"))
    tenant()
    key = Key("default", "rows", "r")
    with connect(url) as client:
        assert publish_sections(client) == ["tenants", "keys", "states"]
        SyncStore(client).register(key, DOCUMENT)
        projection.project(client)
        assert Instance.objects.get(instance_id="r").live
        SyncStore(client).deregister(key)
        projection.project(client)
        assert not Instance.objects.get(instance_id="r").live
