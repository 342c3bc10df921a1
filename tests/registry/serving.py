"""The lane under a real uvicorn, with a node and keys of its own, and a stand-in for Django behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import uvicorn

from anumate.lib import env
from anumate.lib.redis import connect
from registry.lane import Lane
from registry.live.keys import KeyRecord, KeySection, TenantRecord, TenantSection, make, secret_hash
from registry.live.node import Node
from registry.live.sections import publish
from tests.conftest import PromptServer, eventually

PEPPER = "a pepper"
TENANTS = (TenantRecord("default"), TenantRecord("acme"), TenantRecord("gone", active=False))


@dataclass
class Served:
    """A running lane: a client without a key, and keys by what they are for."""

    http: httpx.AsyncClient
    node: Node
    lane: Lane
    keys: dict[str, str]
    port: int

    def key(self, name: str = "write", **more: str) -> dict[str, str]:
        return {"X-API-Key": self.keys[name], **more}


async def stand_in(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": f"django saw {scope['method']} {scope['path']}".encode()})


def publish_keys(redis_url: str) -> dict[str, str]:
    wanted: dict[str, tuple[str, tuple[str, ...], float]] = {
        "write": ("default", ("registry:read", "registry:write"), 0.0),
        "read": ("default", ("registry:read",), 0.0),
        "acme": ("acme", ("registry:read", "registry:write"), 0.0),
        "admin": ("default", ("admin",), 0.0),
        "expired": ("default", ("admin",), 1.0),
        "inactive": ("gone", ("admin",), 0.0),
    }
    records, secrets = [], {}
    for name, (tenant, scopes, expires_at) in wanted.items():
        public_id, secrets[name] = make()
        records.append(
            KeyRecord(public_id, name, tenant, secret_hash(PEPPER, secrets[name]), scopes, expires_at=expires_at)
        )
    public_id, secrets["elsewhere"] = make()
    digest = secret_hash(PEPPER, secrets["elsewhere"])
    records.append(KeyRecord(public_id, "elsewhere", "default", digest, ("admin",), networks=("10.0.0.0/8",)))
    with connect(redis_url) as client:
        publish(client, "keys", origin="test", revision=1, body=msgspec.json.encode(KeySection(tuple(records))))
        publish(client, "tenants", origin="test", revision=1, body=msgspec.json.encode(TenantSection(TENANTS)))
    return secrets


@asynccontextmanager
async def serving(
    redis_url: str, keys: dict[str, str] | None = None, *, pepper: str = PEPPER, **environ: str
) -> AsyncIterator[Served]:
    keys = publish_keys(redis_url) if keys is None else keys
    node = Node(env.read({"REDIS_URL": redis_url, **environ}), pepper)
    lane = Lane(stand_in, node)
    await node.start()
    server = PromptServer(uvicorn.Config(lane, port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            yield Served(http, node, lane, keys, port)
    finally:
        server.should_exit = True
        await task
        await node.stop()
