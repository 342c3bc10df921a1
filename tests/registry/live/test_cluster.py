"""The live state on a cluster of three servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from anumate.lib.redis import connect, connect_async
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import AsyncStore, SyncStore
from tests.registry.live.nodes import cluster

KEYS = [Key(tenant, service, str(number)) for tenant in ("a", "b") for service in ("x", "y") for number in range(5)]
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "localhost", 8000)}, lease_ttl=30)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster")) as ports:
        yield f"redis+cluster://127.0.0.1:{ports[-1]}"


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
