"""Forgets, in Redis, the figures of services that have long been gone: nothing else would ever end them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import redis

from registry.live import ops
from registry.live.store import SyncStore

COUNTERS: Final = "anumate:{g}:counters"
"""The gateway's totals; a field's name starts with `<tenant>|<route>|<service>|`."""
ABSENT: Final = ops.PREFIX + "absent"
"""zset: `<tenant>|<service>` that has counters and no instance → since when that was seen, in seconds."""
KEPT_SECONDS: Final = 7 * 86_400.0
# After the store or the lane was away, instances are given this long to register again before anybody counts.
GRACE_SECONDS: Final = 90.0
PAGE: Final = 1_000

Pair = tuple[str, str]


def forget_services(client: redis.Redis, *, now: float | None = None) -> int:
    """Drop the counters of services that have had no instance for a week; answers how many services that were."""
    store = SyncStore(client)
    if store.back_for(now=now) < GRACE_SECONDS:
        return 0
    if now is None:
        now = float(client.time()[0])
    live = {(key.tenant, key.service) for key in store.members().instances}
    absent = {pair for pair, _ in _counters(client)} - live
    _note(client, absent, now)
    long_gone = {_parse(name) for name in _range(client, "-inf", now - KEPT_SECONDS)} & absent
    _drop(client, [field for pair, field in _counters(client) if pair in long_gone])
    _unlist(client, [f"{tenant}|{service}" for tenant, service in long_gone])
    return len(long_gone)


def _note(client: redis.Redis, absent: set[Pair], now: float) -> None:
    """Who is absent since now, and who is no longer."""
    known = {_parse(name) for name in _range(client, "-inf", "+inf")}
    fresh: dict[Any, float] = {f"{tenant}|{service}": now for tenant, service in absent - known}
    if fresh:
        client.zadd(ABSENT, fresh, nx=True)
    _unlist(client, [f"{tenant}|{service}" for tenant, service in known - absent])


def _counters(client: redis.Redis) -> Iterator[tuple[Pair, bytes]]:
    """Each counter that is about a service, in pages, so that Redis does not stand still."""
    for field, _ in client.hscan_iter(COUNTERS, count=PAGE):
        parts = field.decode(errors="replace").split("|")
        if len(parts) >= 4 and parts[2]:
            yield (parts[0], parts[2]), field


def _drop(client: redis.Redis, fields: list[bytes]) -> None:
    for start in range(0, len(fields), PAGE):
        client.hdel(COUNTERS, *fields[start : start + PAGE])


def _unlist(client: redis.Redis, names: list[str]) -> None:
    for start in range(0, len(names), PAGE):
        client.zrem(ABSENT, *names[start : start + PAGE])


def _range(client: redis.Redis, least: float | str, most: float | str) -> list[bytes]:
    return cast("list[bytes]", client.zrangebyscore(ABSENT, least, most))


def _parse(name: bytes) -> Pair:
    tenant, _, service = name.decode(errors="replace").partition("|")
    return tenant, service
