"""The live state on a primary that a sentinel names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from anumate.lib.redis import connect, connect_async
from registry.live.instances import Document, Endpoint, Key
from registry.live.store import AsyncStore, SyncStore
from tests.registry.live.nodes import sentinel

KEY = Key("default", "orders", "a")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "localhost", 8000)}, lease_ttl=30)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sentinel(tmp_path_factory.mktemp("sentinel")) as port:
        # The first sentinel is away; the next one is asked.
        yield f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/mymaster/0"


def test_a_thread_registers_beats_reads_and_leaves(url: str) -> None:
    client = connect(url)
    try:
        store = SyncStore(client)
        assert store.register(KEY, DOCUMENT).outcome == "created"
        assert store.heartbeat(KEY) is not None
        assert store.snapshot().known.keys() == {KEY}
        assert store.deregister(KEY) is not None
    finally:
        client.close()


async def test_a_loop_registers_beats_reads_and_leaves(url: str) -> None:
    store = AsyncStore(connect_async(url, read_timeout=None))
    try:
        assert (await store.register(KEY, DOCUMENT)).outcome == "created"
        assert await store.heartbeat(KEY) is not None
        assert (await store.snapshot()).known.keys() == {KEY}
        assert await store.deregister(KEY) is not None
    finally:
        await store.close()
