"""Which routing table is published, and which one each worker of the gateway serves: numbers that anybody may know."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import redis
import redis.asyncio as aioredis

from gateway.control.breakers import worker_reports
from gateway.control.publish import SECTION
from gateway.proxy.reports import REPORTS, key_of_report, read_reports
from registry.live.sections import SECTIONS


class Tables(msgspec.Struct, frozen=True):
    """The published table's revision, and that of each worker that is alive, the oldest first (0: it has none yet)."""

    published: int
    served: tuple[int, ...]


class WorkerTable(NamedTuple):
    """A worker of the gateway, the revision it serves (0: none yet), how many it is behind what is published, and how
    much of it the worker cannot serve.
    """

    worker: str
    table_revision: int
    table_lag: int
    skipped: int


def worker_tables(client: redis.Redis) -> list[WorkerTable]:
    """All workers that are alive, by name.

    Raises:
        redis.ConnectionError and its like: the store is away.
    """
    body: Any = client.hget(SECTIONS, f"{SECTION}:body")
    published = _number.decode(body).revision if body else 0
    return [
        WorkerTable(
            report.worker, report.table_revision, max(0, published - report.table_revision), len(report.skipped)
        )
        for report in sorted(worker_reports(client), key=lambda report: report.worker)
    ]


class _Numbered(msgspec.Struct):
    revision: int = 0


_number = msgspec.json.Decoder(_Numbered)


class TablesReader:
    """Reads them. A table is large and seldom another one, so it is fetched only when its digest is."""

    def __init__(self) -> None:
        self._digest = b""
        self._published = 0

    async def read(self, client: aioredis.Redis) -> Tables | None:
        """None while nothing is published.

        Raises:
            redis.ConnectionError and its like: the store is away.
        """
        digest: Any = await client.hget(SECTIONS, f"{SECTION}:digest")
        if digest is None:
            return None
        if digest != self._digest:
            body: Any = await client.hget(SECTIONS, f"{SECTION}:body")
            self._digest, self._published = digest, _number.decode(body).revision
        members: Any = await client.zrange(REPORTS, 0, -1)
        workers = [member.decode() for member in members]
        bodies: Any = await client.mget([key_of_report(worker) for worker in workers]) if workers else []
        reports = read_reports(zip(workers, bodies, strict=True))
        return Tables(self._published, tuple(sorted(report.table_revision for report in reports)))
