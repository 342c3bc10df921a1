"""A stand-in registry on a real port, which says what a test wants and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import uvicorn

from tests.conftest import PromptServer


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


class StandIn:
    """Knows leases and lists.

    `refuse_with` turns every answer into that status; a registration is answered once `slow`, if there is one, is set.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.leases: dict[str, dict[str, Any]] = {}
        self.heartbeat_interval = 0.02
        self.refuse_with: int | None = None
        self.retry_after: str | None = None
        self.canned: dict[str, tuple[int, Any]] = {}
        self.index = 1
        self.changed = asyncio.Event()
        self.slow: asyncio.Event | None = None

    def count(self, method: str, ending: str) -> int:
        return sum(asked.method == method and asked.path.endswith(ending) for asked in self.asked)

    def change(self) -> None:
        self.index += 1
        self.changed.set()
        self.changed = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode())
        asked = Asked(scope["method"], scope["path"], query, headers, json.loads(body) if body else None)
        self.asked.append(asked)
        status, answer = await self._answer(asked)
        sent = [(b"content-type", b"application/json")]
        if self.retry_after:
            sent.append((b"retry-after", self.retry_after.encode()))
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode() if answer is not None else b""})

    async def _answer(self, asked: Asked) -> tuple[int, Any]:
        if self.refuse_with:
            return self.refuse_with, {"detail": "The stand-in says no.", "code": "stand_in"}
        if asked.path in self.canned:
            return self.canned[asked.path]
        match asked.method:
            case "POST" if asked.path == "/v1/services/register":
                self.leases[asked.body["instance_id"]] = asked.body
                self.change()
                if self.slow is not None:
                    await self.slow.wait()
                return 201, {
                    "instance_id": asked.body["instance_id"],
                    "lease_ttl": 30,
                    "heartbeat_interval": self.heartbeat_interval,
                    "index": str(self.index),
                }
            case "GET":
                if asked.query.get("index") == [str(self.index)]:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.changed.wait(), 1.0)
                return 200, {"index": str(self.index), "services": list(self.leases.values())}
            case "PUT":
                if asked.path.split("/")[-2] in self.leases:
                    return 200, {}
            case "DELETE":
                if self.leases.pop(asked.path.split("/")[-1], None):
                    self.change()
                    return 204, None
        return 404, {"detail": "There is no such lease.", "code": "not_found"}


@asynccontextmanager
async def stand_in(port: int = 0) -> AsyncIterator[StandIn]:
    """A stand-in that listens; on `port`, to come back where one was."""
    listener = socket.create_server(("127.0.0.1", port))
    registry = StandIn(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(registry, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = PromptServer(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield registry
    finally:
        registry.changed.set()
        server.should_exit = True
        await serving


class _no_signals:
    """pytest keeps its own Ctrl-C."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...
