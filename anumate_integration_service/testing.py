"""A registry for the tests of an app that uses this package: in memory, and over HTTP for a real client.

    def test_it_asks_another_when_one_is_gone(anumate_registry):
        anumate_registry.add("orders", "http://127.0.0.1:8001")
        client = httpx.Client(transport=SyncAnumateTransport(anumate_registry))

The fixture `anumate_registry` comes with the package. While a test has it, `ANUMATE_URL` points to it, so that the
app's own `create_discovery_client` registers there; `registry.registrations` tells what it said.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from anumate_integration_service.catalogue import Catalogue
from anumate_integration_service.instances import Endpoint, ServiceInstance

LEASE_TTL: Final = 30
LONGEST_WAIT: Final = 30.0
POLL_SECONDS: Final = 0.02

Answer = tuple[int, dict[str, Any] | None]


class FakeRegistry:
    """Who is there is what the test says, and what real clients register. Threads may share it.

    `registrations`: every document registered, in order; `heartbeats` and `departures`: (service, instance id).
    `instances` is what the transports ask. Nothing is listened to until `start`.
    """

    def __init__(self) -> None:
        self.registrations: list[dict[str, Any]] = []
        self.heartbeats: list[tuple[str, str]] = []
        self.departures: list[tuple[str, str]] = []
        self._there: dict[tuple[str, str], ServiceInstance] = {}
        self._catalogue = Catalogue()
        self._index = 1
        self._down = False
        self._news = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    # What a test says

    def add(
        self,
        name: str,
        url: str = "http://127.0.0.1:8000",
        *,
        instance_id: str = "",
        version: str = "",
        tags: Iterable[str] = (),
        capabilities: Iterable[str] = (),
        zone: str = "",
        weight: int = 100,
        metadata: Mapping[str, str] | None = None,
    ) -> ServiceInstance:
        """Have an instance there, healthy, at `url`; one of the same name and id is replaced."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        instance = ServiceInstance(
            name=name,
            instance_id=instance_id or f"{name}-{port}",
            version=version,
            endpoints={parts.scheme: Endpoint(parts.scheme, parts.hostname or "", port)},
            capabilities=tuple(capabilities),
            tags=tuple(tags),
            zone=zone,
            weight=weight,
            metadata=dict(metadata or {}),
            status="healthy",
        )
        return self.put(instance)

    def put(self, instance: ServiceInstance) -> ServiceInstance:
        """Have exactly this instance there."""
        with self._news:
            self._there[instance.name, instance.instance_id] = instance
            self._changed()
        return instance

    def remove(self, instance: ServiceInstance) -> None:
        """Have it gone. That it was not there is no error."""
        with self._news:
            self._there.pop((instance.name, instance.instance_id), None)
            self._changed()

    def mark(self, instance: ServiceInstance, *, status: str = "unhealthy", state: str = "enabled") -> ServiceInstance:
        """Change its health (healthy, degraded, unhealthy) or its operator state (enabled, draining, maintenance)."""
        return self.put(replace(self._there[instance.name, instance.instance_id], status=status, state=state))

    def forget(self) -> None:
        """Lose every lease, as a registry does that comes back without its data; clients register again."""
        with self._news:
            self._there.clear()
            self._changed()

    def go_down(self) -> None:
        """Answer every request with 503 until `come_back`. `instances` goes on answering, as a client's memory does."""
        with self._news:
            self._down = True
            self._news.notify_all()

    def come_back(self) -> None:
        self._down = False

    def instances(
        self,
        name: str,
        *,
        version: str = "",
        tags: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        zone: str = "",
    ) -> tuple[ServiceInstance, ...]:
        """Those that may get traffic; the same tuple as long as nothing changed."""
        return self._catalogue.find(name, version, tags, capabilities, zone)

    # What clients ask

    @property
    def url(self) -> str:
        """Where it listens; empty when it does not."""
        return f"http://127.0.0.1:{self._server.server_port}" if self._server else ""

    def start(self) -> Self:
        """Listen on a free port of this machine."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="fake registry", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Listen no more. Without `start`, nothing."""
        if self._server is None:
            return
        self.go_down()
        self._server.shutdown()
        self._server.server_close()
        self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def answer(self, method: str, target: str, body: dict[str, Any]) -> Answer:
        """What the registry's HTTP interface answers, as far as clients use it: a status and a document."""
        parts = urlsplit(target)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        with self._news:
            if self._down:
                return _problem(503, "unavailable", "The registry is down.")
            match (method, *path):
                case ("POST", "v1", "services", "register"):
                    return self._register(body)
                case ("GET", "v1", "services"):
                    return self._list(parse_qs(parts.query))
                case ("PUT", "v1", "services", name, instance_id, "heartbeat") if (name, instance_id) in self._there:
                    self.heartbeats.append((name, instance_id))
                    return self._beat(self._there[name, instance_id], body)
                case ("DELETE", "v1", "services", name, instance_id) if (name, instance_id) in self._there:
                    self.departures.append((name, instance_id))
                    del self._there[name, instance_id]
                    self._changed()
                    return 204, None
        return _problem(404, "not_found", "There is no such thing.")

    def _register(self, body: dict[str, Any]) -> Answer:
        self.registrations.append(body)
        instance = ServiceInstance.from_json(body)
        self._there[instance.name, instance.instance_id] = instance
        self._changed()
        ttl = float(body.get("lease_ttl") or LEASE_TTL)
        lease = {"lease_ttl": ttl, "heartbeat_interval": ttl / 3}
        return 201, {"instance_id": instance.instance_id, "index": str(self._index), **lease}

    def _beat(self, instance: ServiceInstance, report: dict[str, Any]) -> Answer:
        status = report.get("status", instance.status)
        if status != instance.status:
            self._there[instance.name, instance.instance_id] = replace(instance, status=status)
            self._changed()
        return 200, {}

    def _list(self, query: dict[str, list[str]]) -> Answer:
        """The listing; with the newest index, once there is a newer one or the wait is over."""
        if query.get("index") == [str(self._index)]:
            wait = min(float(query.get("wait", ["30"])[0].rstrip("s")), LONGEST_WAIT)
            known = self._index
            self._news.wait_for(lambda: self._index != known or self._down, wait)
            if self._down:
                return _problem(503, "unavailable", "The registry is down.")
        return 200, {"index": str(self._index), "services": [asdict(each) for each in self._catalogue.instances]}

    def _changed(self) -> None:
        if self._catalogue.replace(self._there.values()):
            self._index += 1
            self._news.notify_all()


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            body = json.loads(self.rfile.read(length) or b"{}")
            status, document = self.registry.answer(self.command, self.path, body)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            status, document = _problem(400, "malformed", f"{type(error).__name__}: {error}")
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            """The client hung up, which it may."""

    def log_message(self, format: str, *args: object) -> None:
        """A test's output is the test's."""


def _problem(status: int, code: str, detail: str) -> Answer:
    return status, {"status": status, "code": code, "detail": detail}
