"""A gateway on a real port, between real sockets: services that answer what a test tells them, a real Valkey behind."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import msgspec
import pytest
import redis
import uvicorn

from anumate.lib.env import Env
from gateway.proxy import table as routing
from gateway.proxy.app import Gateway
from gateway.proxy.config import SERVER_OPTIONS, Config
from gateway.proxy.drain import DrainingServer
from registry.live import keys as api_keys
from registry.live.instances import Document, Endpoint, Key
from registry.live.sections import publish
from registry.live.store import SyncStore
from tests.conftest import PromptServer, eventually

PEPPER = "a pepper for tests"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Handler = Callable[["Call"], Awaitable[None]]


class Call:
    """One request as a service got it."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.reader = reader
        self.writer = writer
        self.line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.fields = [tuple(line.split(": ", 1)) for line in lines]
        self.body = b""

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    async def read_body(self) -> None:
        if self.all("content-length"):
            self.body = await self.reader.readexactly(int(self.one("content-length")))
        elif self.all("transfer-encoding"):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                self.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()

    async def answer(self, data: bytes = OK) -> None:
        self.writer.write(data)
        await self.writer.drain()


async def _always_ok(call: Call) -> None:
    await call.read_body()
    await call.answer()


class Service:
    """A service on a socket. `handler` answers each request, as well or as badly as a test wants."""

    def __init__(self) -> None:
        self.handler: Handler = _always_ok
        self.calls: list[Call] = []
        self.connections = 0
        self.open = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int = 0, context: ssl.SSLContext | None = None) -> Service:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await eventually(lambda: self.open == 0, what="the service's connections to end")

    def answers(self, data: bytes, *, close: bool = False) -> None:
        async def handler(call: Call) -> None:
            await call.read_body()
            await call.answer(data)
            if close:
                call.writer.close()

        self.handler = handler

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                call = Call(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                self.calls.append(call)
                await self.handler(call)
        self.open -= 1
        writer.close()


class World:
    """The gateway under test and everything around it."""

    def __init__(self, store: redis.Redis, redis_url: str, cache_dir: Path) -> None:
        self.redis = store
        self.redis_url = redis_url
        self.cache_dir = cache_dir
        self.lives = SyncStore(store)
        self.services: list[Service] = []
        self.gateways: list[Running] = []
        self._revision = 0
        public_id, self.key = api_keys.make()
        self.key_id = public_id
        digest = api_keys.secret_hash(PEPPER, self.key)
        self.publish_keys(api_keys.KeyRecord(public_id, "a key", "default", digest, ("gateway:invoke",)))

    def publish_keys(self, *records: api_keys.KeyRecord, tenants: tuple[str, ...] = ("default",)) -> None:
        self._publish("keys", msgspec.json.encode(api_keys.KeySection(records)))
        rows = tuple(api_keys.TenantRecord(tenant) for tenant in tenants)
        self._publish("tenants", msgspec.json.encode(api_keys.TenantSection(rows)))

    def publish(self, *routes: routing.Route, **parts: Any) -> None:
        self._publish("routes", routing.encode(routing.RoutingTable(self._revision + 1, routes, **parts)))

    def _publish(self, name: str, body: bytes) -> None:
        self._revision += 1
        publish(self.redis, name, origin="tests", revision=self._revision, body=body)

    async def service(self, name: str = "orders", id: str = "a", **document: Any) -> Service:
        service = await Service().start()
        self.services.append(service)
        self.register(name, id, service.port, **document)
        return service

    def register(self, name: str, id: str, port: int, **document: Any) -> None:
        endpoints = {"http": Endpoint("http", "127.0.0.1", port)}
        self.lives.register(Key("default", name, id), Document(endpoints=endpoints, **document))

    async def gateway(self, server: Mapping[str, Any] = MappingProxyType({}), **env: Any) -> Running:
        """`server` are options of uvicorn's."""
        env.setdefault("default_rate_limit", 0)
        config = Config(env=Env(redis_url=self.redis_url, **env), pepper=PEPPER, cache_dir=self.cache_dir)
        running = await Running(Gateway(config), self, server).start()
        self.gateways.append(running)
        return running

    async def close(self) -> None:
        for each in self.gateways:
            await each.stop()
        for service in self.services:
            await service.stop()


class PromptDrainingServer(PromptServer, DrainingServer):
    pass


class Running:
    """A gateway on a port."""

    def __init__(self, app: Gateway, world: World, server: Mapping[str, Any]) -> None:
        self.app = app
        self.world = world
        options = {**SERVER_OPTIONS, "loop": "none", "log_config": None, **server}
        config = uvicorn.Config(app, host="127.0.0.1", port=0, **options)
        self._server = PromptDrainingServer(config, app.drain_seconds)

    async def start(self) -> Running:
        self._task = asyncio.create_task(self._server._serve())
        await eventually(lambda: self._server.started or self._task.done(), what="the gateway to start")
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"X-API-Key": self.world.key}, timeout=10.0
        )
        return self

    async def stop(self) -> None:
        await self.client.aclose()
        self.drain()
        await self.ended()

    def drain(self, number: int = signal.SIGTERM) -> None:
        """As the signal does it."""
        self._server.handle_exit(number, None)

    async def ended(self) -> None:
        await self._task

    @property
    def connections(self) -> set[Any]:
        """Those of its clients."""
        return self._server.server_state.connections

    async def knows(self, service: str, count: int) -> None:
        await eventually(
            lambda: len([e for e in self.app.balancer.endpoints() if e.service == service]) == count,
            what=f"{count} instances of {service}",
        )

    async def serves(self, revision: int) -> None:
        await eventually(lambda: self.app.live.current.revision >= revision, what=f"revision {revision}")

    async def get(self, path: str = "/orders", **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def raw(self, data: bytes, *, answers: int = 1, seconds: float = 5.0) -> bytes:
        """What the gateway answers to these bytes, until that many answers are whole or it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while piece := await reader.read(65536):
                    answer += piece
                    if _whole(answer) >= answers:
                        break
        writer.close()
        return answer


def _whole(data: bytes) -> int:
    """How many answers have come whole. One to HEAD never does: only its end tells that nothing follows."""
    count = 0
    while b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if head[9:12] == b"100":
            continue
        if head[9:12] in (b"204", b"304"):
            size = 0
        elif length:
            size = int(length[1])
        elif data.startswith(b"0\r\n\r\n") or b"\r\n0\r\n\r\n" in data:
            size = data.index(b"0\r\n\r\n") + 5
        else:
            break
        if len(data) < size:
            break
        count += 1
        data = data[size:]
    return count


def a_route(name: str = "orders", service: str = "orders", **fields: Any) -> routing.Route:
    fields.setdefault("path", f"/{name}")
    fields.setdefault("targets", (routing.Target(service),))
    return routing.Route(id=fields.pop("id", abs(hash(name))), name=name, tenant="default", **fields)


@pytest.fixture
async def world(store: redis.Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    here = World(store, redis_url, tmp_path / "cache")
    yield here
    await here.close()


@pytest.fixture
async def service(world: World) -> Service:
    """The one instance of service `orders`, behind route /orders."""
    world.publish(a_route())
    return await world.service()


@pytest.fixture
async def gateway(world: World, service: Service) -> Running:
    running = await world.gateway()
    await running.knows("orders", 1)
    return running
