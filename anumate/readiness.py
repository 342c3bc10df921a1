"""`/livez`, `/readyz` and `/health` of the control plane, answered before Django, so that neither its host check nor a
database that is away keeps an orchestrator from its answer.

`/livez`: this process runs. `/readyz`: it has started and is not about to end. A part that is away takes nothing out of
rotation, because discovery goes on without it. `/health`: every part, 503 when one is away, and the revisions of the
routing table that is published and of those that the gateway's workers serve.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from django.db import DatabaseError, connection

from anumate.lib.redis import UNAVAILABLE
from gateway.control.tables import Tables, TablesReader
from registry.live.node import Node

PATHS = frozenset({"/livez", "/readyz", "/health"})
PART_TIMEOUT = 1.0
# Asked often by several probers, looked at once.
KEPT = 1.0


class Readiness:
    """Answers the three paths for one process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.serving = False
        self._parts: dict[str, str] = {}
        self._tables: Tables | None = None
        self._reader = TablesReader()
        self._looked_at = 0.0

    async def __call__(self, scope: Any, send: Any) -> None:
        status, body = await self.answer(scope["path"])
        data = msgspec.json.encode(body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(data)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})

    async def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == "/livez":
            return 200, {"status": "alive"}
        if path == "/readyz":
            state = "ready" if self.serving else "starting or ending"
            return (200 if self.serving else 503), {"status": state, "index": self.node.catalog.index}
        parts = await self._look()
        away = [name for name, state in parts.items() if state != "ok"]
        tables = {"routing_table": self._tables} if self._tables else {}
        return (503 if away else 200), {"status": "degraded" if away else "ok", "parts": parts, **tables}

    async def _look(self) -> dict[str, str]:
        if time.monotonic() - self._looked_at > KEPT:
            database, store = await asyncio.gather(
                _in_time(asyncio.to_thread(_ask_database)), _in_time(self._ask_store())
            )
            self._parts = {"database": database, "store": store}
            self._looked_at = time.monotonic()
        return self._parts

    async def _ask_store(self) -> None:
        self._tables = None
        await self.node.redis.ping()
        self._tables = await self._reader.read(self.node.redis)


async def _in_time(question: Any) -> str:
    try:
        await asyncio.wait_for(question, PART_TIMEOUT)
    except (DatabaseError, *UNAVAILABLE, TimeoutError):
        return "away"
    return "ok"


def _ask_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()  # this thread's own
