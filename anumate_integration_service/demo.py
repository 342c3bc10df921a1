"""A small service of the demo: `python -m anumate_integration_service.demo SERVICE INSTANCE`.

It answers every path with who it is, registers with our own client, and can be broken for a while:
`POST /break?seconds=20` has it answer 500, so that one can watch its checks fail and traffic go elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from anumate_integration_service.capabilities import ServiceCapability
from anumate_integration_service.client import DiscoveryClient, create_discovery_client

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

LEASE_TTL = 6
CHECK = {"check_type": "http", "path": "/health", "interval": 1, "timeout": 0.8}
LONGEST_BREAK = 600.0


class DemoService:
    """An ASGI app that says who answers."""

    def __init__(self, service: str, instance: str) -> None:
        self.service = service
        self.instance = instance
        self.answered = 0
        self.broken_until = 0.0

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        if scope["type"] != "http":
            return
        now = time.monotonic()
        if (scope["method"], scope["path"]) == ("POST", "/break"):
            seconds = _seconds(scope["query_string"])
            self.broken_until = now + seconds
            await self._answer(send, 200, {"broken_for": seconds})
        elif now < self.broken_until:
            await self._answer(send, 500, {"status": "broken"})
        elif scope["path"] == "/health":
            await self._answer(send, 200, {"status": "healthy"})
        else:
            self.answered += 1
            await self._answer(send, 200, {"path": scope["path"], "answered": self.answered})

    async def _answer(self, send: Send, status: int, body: dict[str, object]) -> None:
        data = json.dumps({"service": self.service, "instance": self.instance, **body}).encode() + b"\n"
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})


class DemoServer(uvicorn.Server):
    """Registers once it listens, and leaves before it stops listening."""

    def __init__(self, config: uvicorn.Config, client: DiscoveryClient) -> None:
        super().__init__(config)
        self.client = client

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self.client.start()
        if self.client.registered:
            sys.stdout.write(f"{self.client.instance_id} is registered\n")
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.client.stop()
        await super().shutdown(sockets)


def main(service: str, instance: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    # Handed on by the listener; asyncio asks for it only on sockets of its own making, and Nagle's wait for the
    # peer's delayed acknowledgement would put 40 ms into each answer after the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client = create_discovery_client(
        service_name=service,
        http_port=listener.getsockname()[1],
        instance_id=instance,
        host="127.0.0.1",
        version="1.0.0",
        capabilities=[ServiceCapability.HTTP_API],
        tags=["demo"],
        metadata={"pid": str(os.getpid())},
        lease_ttl=LEASE_TTL,
        health_check=CHECK,
    )
    config = uvicorn.Config(DemoService(service, instance), log_level="warning", access_log=False, lifespan="off")
    asyncio.run(DemoServer(config, client).serve([listener]))


def _seconds(query: bytes) -> float:
    try:
        asked = float(parse_qs(query.decode("latin-1"))["seconds"][0])
    except (KeyError, ValueError):
        asked = 20.0
    return max(0.0, min(asked, LONGEST_BREAK))


if __name__ == "__main__":
    main(*sys.argv[1:3])
