"""Registrations that count only once a replica has them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from anumate.lib.redis import connect, connect_async
from registry.live import ops
from registry.live.instances import Document, Key
from registry.live.replication import NotReplicated, Replicated
from registry.live.store import AsyncStore, SyncStore
from tests.registry.live.nodes import Watched, cluster, watched
from tests.registry.serving import serving

DOCUMENT = Document(version="1.0", lease_ttl=30)
A = Key("default", "orders", "a")
BODY = {"name": "orders", "instance_id": "b", "endpoints": {"http": {"protocol": "http", "host": "h", "port": 80}}}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("replication")) as group:
        yield group


@pytest.fixture
def primary(servers: Watched) -> Iterator[redis.Redis]:
    with connect(f"redis://127.0.0.1:{servers.primary}") as client:
        client.flushall()
        yield client


@pytest.fixture
async def store(servers: Watched, primary: redis.Redis) -> AsyncIterator[AsyncStore]:
    store = AsyncStore(connect_async(servers.url, read_timeout=None), replicas=1)
    yield store
    await store.close()


@pytest.fixture
def silent_replica(servers: Watched) -> Iterator[None]:
    _, process = servers.replicas[0]
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def waits(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_wait", {"calls": 0})["calls"])


async def test_what_was_acknowledged_is_on_the_replica(store: AsyncStore, servers: Watched) -> None:
    assert (await store.register(A, DOCUMENT)).outcome == "created"
    with connect(f"redis://127.0.0.1:{servers.replicas[0][0]}") as replica:
        assert replica.exists(ops.register(A, DOCUMENT).keys[0])


async def test_registrations_that_come_together_share_a_wait(store: AsyncStore, primary: redis.Redis) -> None:
    primary.config_resetstat()
    leases = await asyncio.gather(*(store.register(Key("default", "orders", str(n)), DOCUMENT) for n in range(100)))
    assert {lease.outcome for lease in leases} == {"created"}
    assert waits(primary) == 1


async def test_heartbeats_wait_for_no_replica(store: AsyncStore, primary: redis.Redis) -> None:
    await store.register(A, DOCUMENT)
    primary.config_resetstat()
    assert await store.heartbeat(A) is not None
    assert waits(primary) == 0


async def test_a_primary_that_forgot_the_scripts_is_told_them(store: AsyncStore, primary: redis.Redis) -> None:
    primary.script_flush()
    assert (await store.register(A, DOCUMENT)).outcome == "created"
    assert await store.deregister(A) is not None


async def test_without_a_word_of_the_replica_neither_counts_but_both_may_be_asked_again(
    store: AsyncStore, silent_replica: None, servers: Watched
) -> None:
    with pytest.raises(NotReplicated):
        await store.register(A, DOCUMENT)
    assert await store.heartbeat(A) is not None
    with pytest.raises(NotReplicated):
        await store.deregister(A)
    servers.replicas[0][1].send_signal(signal.SIGCONT)
    assert (await store.register(A, DOCUMENT)).outcome == "created"
    assert (await store.register(A, DOCUMENT)).outcome == "renewed"


async def test_the_lane_asks_to_come_again(servers: Watched, primary: redis.Redis, silent_replica: None) -> None:
    async with serving(servers.url, REGISTRY_WAIT_REPLICAS="1") as lane:
        refused = await lane.http.post("/v1/services/register", json=BODY, headers=lane.key())
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        servers.replicas[0][1].send_signal(signal.SIGCONT)
        assert (await lane.http.post("/v1/services/register", json=BODY, headers=lane.key())).is_success


async def test_on_a_cluster_the_wait_goes_where_the_registrations_went(tmp_path: Path) -> None:
    with cluster(tmp_path) as ports:
        url = f"redis+cluster://127.0.0.1:{ports[0]}"
        client = connect_async(url, read_timeout=None)
        try:
            # Nobody has a replica here: none is confirmed by one, and all are by none.
            _, lease = await Replicated(client, 0).send([ops.deregister(A), ops.register(A, DOCUMENT)])
            assert lease[0] == b"created"
            with pytest.raises(NotReplicated):
                await Replicated(client, 1, seconds=0.01).send([ops.register(A, DOCUMENT)])
        finally:
            await client.aclose()
        with connect(url) as sync:
            assert SyncStore(sync).members().instances == [A]
