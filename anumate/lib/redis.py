"""Redis clients for every way we run: one server, Sentinel, Cluster.

redis-py 8 made a 5 s socket timeout its default, which kills blocking reads; every client here says its own.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 5.0
UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, OSError)
"""What a client raises when the server is away; everything else is a defect."""


def connect(url: str, *, read_timeout: float | None = READ_TIMEOUT) -> redis.Redis:
    """A blocking client. `read_timeout` None waits for ever (blocking commands)."""
    options = _options(read_timeout)
    if url.startswith("redis+sentinel://"):
        hosts, master, more = _sentinel(url)
        watchers = Sentinel(hosts, sentinel_kwargs=_asking(Retry(NoBackoff(), 0)))  # type: ignore[no-untyped-call]
        client = watchers.master_for(master, connection_pool_class=_Pool, **more, **options)  # type: ignore[no-untyped-call]
        return cast("redis.Redis", client)
    if url.startswith("redis+cluster://"):
        return cast("redis.Redis", redis.RedisCluster.from_url("redis" + url.removeprefix("redis+cluster"), **options))
    return redis.Redis.from_url(url, **options)


def connect_async(url: str, *, read_timeout: float | None = READ_TIMEOUT) -> aioredis.Redis:
    """A client for one event loop; make it inside the loop that uses it."""
    options = _options(read_timeout)
    if url.startswith("redis+sentinel://"):
        hosts, master, more = _sentinel(url)
        sentinel = AsyncSentinel(hosts, sentinel_kwargs=_asking(AsyncRetry(NoBackoff(), 0)))  # type: ignore[no-untyped-call]
        found = sentinel.master_for(master, connection_pool_class=_AsyncPool, **more, **options)
        return cast("aioredis.Redis", found)
    if url.startswith("redis+cluster://"):
        return cast(
            "aioredis.Redis", aioredis.RedisCluster.from_url("redis" + url.removeprefix("redis+cluster"), **options)
        )
    return aioredis.Redis.from_url(url, **options)


class _Pool(SentinelConnectionPool):
    """Closes the connections to the sentinels with those to the primary, which redis-py leaves open."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for each in self.sentinel_manager.sentinels:
                each.close()


class _AsyncPool(AsyncSentinelConnectionPool):
    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for each in self.sentinel_manager.sentinels:
                await each.aclose()


def _options(read_timeout: float | None) -> dict[str, Any]:
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": read_timeout,
        "socket_keepalive": True,
        "health_check_interval": 30,
    }


def _asking(retry: Any) -> dict[str, Any]:
    """How a sentinel is asked: once. Where one is away, the next one knows; redis-py would try it for seconds."""
    return {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": CONNECT_TIMEOUT, "retry": retry}


def _sentinel(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    hosts = []
    for place in places.split(","):
        host, _, port = place.partition(":")
        hosts.append((host, int(port or 26379)))
    master, _, database = parts.path.strip("/").partition("/")
    more: dict[str, Any] = {"db": int(database or 0)}
    user, _, password = credentials.partition(":")
    if password:
        more.update(username=user or None, password=password)
    return hosts, master or "mymaster", more
