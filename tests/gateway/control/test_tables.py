"""The published table, and the ones that workers serve."""

from __future__ import annotations

import msgspec
import redis
import redis.asyncio as aioredis

from gateway.control.tables import Tables, TablesReader
from gateway.proxy.reports import REPORTS, WorkerReport, key_of_report
from gateway.proxy.table import RateLimit, RoutingTable, encode
from registry.live.sections import publish


def put(store: redis.Redis, revision: int, table: RoutingTable | None = None) -> None:
    table = table or RoutingTable(revision, rate_limits=(RateLimit("default", f"limit-{revision}", 1.0, 1, "key"),))
    publish(store, "routes", origin="test", revision=revision, body=encode(table))


def serve(store: redis.Redis, worker: str, revision: int) -> None:
    store.set(key_of_report(worker), msgspec.json.encode(WorkerReport(worker, 1.0, (), revision)))
    store.zadd(REPORTS, {worker: 1.0})


async def test_before_anything_is_published_there_is_nothing_to_tell(async_store: aioredis.Redis) -> None:
    assert await TablesReader().read(async_store) is None


async def test_it_tells_what_is_published_and_what_each_worker_serves(
    store: redis.Redis, async_store: aioredis.Redis
) -> None:
    reader = TablesReader()
    put(store, 12)
    serve(store, "a", 12)
    serve(store, "b", 12)
    assert await reader.read(async_store) == Tables(12, (12, 12))
    put(store, 15)
    serve(store, "b", 15)
    store.zadd(REPORTS, {"ended": 1.0})
    assert await reader.read(async_store) == Tables(15, (12, 15))


async def test_an_edit_that_changes_no_table_makes_no_worker_look_old(
    store: redis.Redis, async_store: aioredis.Redis
) -> None:
    put(store, 12)
    put(store, 13, RoutingTable(12, rate_limits=(RateLimit("default", "limit-12", 1.0, 1, "key"),)))
    assert await TablesReader().read(async_store) == Tables(12, ())
