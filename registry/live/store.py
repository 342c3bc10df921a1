"""Runs the operations of `registry.live.ops`: from a loop (`AsyncStore`) or from a thread (`SyncStore`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from anumate.lib.redis import READ_TIMEOUT
from registry.live import ops
from registry.live.instances import Document, Fact, Key
from registry.live.ops import NO_QUOTA, Change, Index, Known, Lease, Members, Op, Quota, Renewal, Snapshot
from registry.live.pump import Pump
from registry.live.replication import Replicated

__all__ = ["AsyncStore", "Change", "Index", "Known", "Lease", "Renewal", "Snapshot", "SyncStore", "ops"]

T = TypeVar("T")

PAGE = 500


class SyncStore:
    """For Django code and tasks."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def run(self, op: Op[T]) -> T:
        count = len(op.keys)
        try:
            raw = self.redis.evalsha(op.script.sha, count, *op.keys, *op.args)
        except NoScriptError:
            raw = self.redis.eval(op.script.text, count, *op.keys, *op.args)
        return op.decode(raw)

    def register(
        self,
        key: Key,
        document: Document,
        *,
        check: Fact | None = None,
        quota: Quota = NO_QUOTA,
        now: float | None = None,
    ) -> Lease:
        """Raises QuotaExceeded."""
        return self.run(ops.register(key, document, check=check, quota=quota, now=now))

    def heartbeat(self, key: Key, *, now: float | None = None) -> Renewal | None:
        return self.run(ops.heartbeat(key, now=now))

    def deregister(self, key: Key, *, now: float | None = None) -> Index | None:
        return self.run(ops.deregister(key, now=now))

    def put_fact(self, key: Key, kind: str, fact: Fact | None, *, now: float | None = None) -> Index | None:
        return self.run(ops.put_fact(key, kind, fact, now=now))

    def sweep(self, limit: int = 500, *, now: float | None = None) -> list[Key]:
        return self.run(ops.sweep(limit, now=now))

    def release(self, tenant: str, service: str = "", *, now: float | None = None) -> int:
        return self.run(ops.release(tenant, service, now=now))

    def stamp(self, *, now: float | None = None) -> float:
        return self.run(ops.stamp(now=now))

    def back_for(self, *, now: float | None = None) -> float:
        return self.run(ops.back_for(now=now))

    def members(self) -> Members:
        return self.run(ops.members())

    def read(self, keys: Sequence[Key]) -> dict[Key, Known]:
        found: dict[Key, Known] = {}
        for page in _pages(keys):
            answers = self.run(ops.read(page))
            found.update(zip(page, answers, strict=True))
        return found

    def snapshot(self) -> Snapshot:
        members = self.members()
        return Snapshot(members.index, self.read(_everyone(members)))

    def changes(self, after: int, count: int = 5000) -> list[Change]:
        """What happened after number `after`, oldest first; the caller looks for a gap at the start."""
        entries: Any = self.redis.xrange(ops.CHANGES, min=f"({after}-0", count=count)
        return [ops.decode_change(entry) for entry in entries]


class AsyncStore:
    """For one event loop. Operations that are asked for while one round trip is under way share the next one.

    Give it a client without a read timeout: the store sets its own, which costs less than a task per command.
    With `replicas`, a registration or its end is answered only once that many replicas have it; see `replication`.
    """

    def __init__(self, client: aioredis.Redis, *, replicas: int = 0) -> None:
        # One more attempt heals a connection that went stale; more would only keep callers waiting in an outage.
        client.set_retry(Retry(NoBackoff(), 1))
        self.redis = client
        self._pump = Pump(self._pipeline, READ_TIMEOUT)
        self._lasting = Pump(Replicated(client, replicas).send, READ_TIMEOUT) if replicas else self._pump

    async def run(self, op: Op[T]) -> T:
        """Raises what `anumate.lib.redis.UNAVAILABLE` names when the store is away."""
        return op.decode(await self._pump.run(op))

    async def close(self) -> None:
        await self.redis.aclose()

    async def register(
        self,
        key: Key,
        document: Document,
        *,
        check: Fact | None = None,
        quota: Quota = NO_QUOTA,
        now: float | None = None,
    ) -> Lease:
        """Raises QuotaExceeded, and NotReplicated when the replicas that were asked for did not confirm in time."""
        op = ops.register(key, document, check=check, quota=quota, now=now)
        return op.decode(await self._lasting.run(op))

    async def heartbeat(self, key: Key, *, now: float | None = None) -> Renewal | None:
        return await self.run(ops.heartbeat(key, now=now))

    async def deregister(self, key: Key, *, now: float | None = None) -> Index | None:
        """Raises NotReplicated."""
        op = ops.deregister(key, now=now)
        return op.decode(await self._lasting.run(op))

    async def put_fact(self, key: Key, kind: str, fact: Fact | None, *, now: float | None = None) -> Index | None:
        return await self.run(ops.put_fact(key, kind, fact, now=now))

    async def sweep(self, limit: int = 500, *, now: float | None = None) -> list[Key]:
        return await self.run(ops.sweep(limit, now=now))

    async def stamp(self, *, now: float | None = None) -> float:
        return await self.run(ops.stamp(now=now))

    async def back_for(self, *, now: float | None = None) -> float:
        return await self.run(ops.back_for(now=now))

    async def members(self) -> Members:
        return await self.run(ops.members())

    async def read(self, keys: Sequence[Key]) -> dict[Key, Known]:
        found: dict[Key, Known] = {}
        for page in _pages(keys):
            answers = await self.run(ops.read(page))
            found.update(zip(page, answers, strict=True))
        return found

    async def snapshot(self) -> Snapshot:
        members = await self.members()
        return Snapshot(members.index, await self.read(_everyone(members)))

    async def leases(self) -> dict[str, float]:
        """When each lease lapses, by the key's text; in pages, so that neither Redis nor this loop stands still."""
        found: dict[str, float] = {}
        cursor, page = await self.run(ops.leases())
        found.update(page)
        while cursor:
            cursor, page = await self.run(ops.leases(cursor))
            found.update(page)
        return found

    async def _pipeline(self, batch: Sequence[Op[Any]]) -> list[Any]:
        pipeline = self.redis.pipeline(transaction=False)
        for op in batch:
            # By its name: redis-py blocks the method in a cluster's pipelines, though every key here has the same slot.
            pipeline.execute_command("EVALSHA", op.script.sha, len(op.keys), *op.keys, *op.args)
        answers = await pipeline.execute(raise_on_error=False)
        for position, op in enumerate(batch):
            if isinstance(answers[position], NoScriptError):
                answers[position] = await self._load_and_run(op)
        return answers

    async def _load_and_run(self, op: Op[Any]) -> Any:
        try:
            return await self.redis.eval(op.script.text, len(op.keys), *op.keys, *op.args)
        except redis.ResponseError as error:
            return error


def _pages(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    return (keys[start : start + PAGE] for start in range(0, len(keys), PAGE))


def _everyone(members: Members) -> list[Key]:
    return list(dict.fromkeys([*members.instances, *members.with_facts]))
