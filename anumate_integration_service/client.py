"""The discovery client: registers a service, keeps its lease, and answers from memory who else is there.

    client = create_discovery_client(service_name="orders", http_port=8000)
    await client.start()        # once the service listens
    client.instances("mail", version=">=1.4,<2")
    ...
    await client.stop()         # before it stops listening

An outage of the registry stops nothing here: what was known last goes on being answered, and the instance registers
again, with back-off, until the registry is back.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import WeakSet

from anumate_integration_service.catalogue import Catalogue
from anumate_integration_service.changes import ChangeFeed
from anumate_integration_service.checks import HealthCheck
from anumate_integration_service.errors import RegistryUnavailable
from anumate_integration_service.instances import ServiceInstance
from anumate_integration_service.lease import ErrorCallback, LeaseKeeper, finish
from anumate_integration_service.pacing import LONGEST_RETRY, Random
from anumate_integration_service.registry_api import RegistryApi
from anumate_integration_service.seat import Seat
from anumate_integration_service.signals import LeaveFirst, on_loop
from anumate_integration_service.snapshot import SnapshotFile
from anumate_integration_service.watcher import Watcher

__all__ = ["DEFAULT_URL", "DiscoveryClient", "HealthCheck", "create_discovery_client"]

DEFAULT_URL = "http://localhost:8090"


def create_discovery_client(
    *,
    service_name: str = "",
    http_port: int = 0,
    capabilities: Iterable[str] = (),
    tags: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    version: str | None = None,
    registry_url: str | None = None,
    api_key: str | None = None,
    host: str | None = None,
    instance_id: str | None = None,
    zone: str = "",
    weight: int | None = None,
    lease_ttl: int | None = None,
    health_check: Mapping[str, Any] | None = None,
    required: bool = False,
    on_error: ErrorCallback | None = None,
    max_stale: float | None = None,
    snapshot_path: str | os.PathLike[str] | None = None,
    longest_retry: float = LONGEST_RETRY,
) -> DiscoveryClient:
    """A client for the service that listens on `http_port`. Without a service name it registers nothing and only looks.

    `registry_url` and `api_key` default to `ANUMATE_URL` and `ANUMATE_API_KEY`, `host` to the address of this machine
    that reaches the registry, `version` to `metadata["version"]`, `instance_id` to the machine's name and the port, so
    that several workers behind one port are one instance. `health_check` asks the platform to check the instance, as in
    `POST /v1/health/configure`.

    `required` has `start` raise when it cannot register. `on_error` is called with each refusal of the registry.
    `max_stale` is how many seconds without a word from the registry make the client stale; never, when left out.
    `snapshot_path` (`ANUMATE_SNAPSHOT`) names a file that remembers the catalogue for a restart in an outage.
    `longest_retry` bounds the pause between attempts, in seconds.

    Raises:
        ValueError: the registry's address is none.
    """
    url = registry_url or os.environ.get("ANUMATE_URL") or DEFAULT_URL
    api = RegistryApi(url, os.environ.get("ANUMATE_API_KEY", "") if api_key is None else api_key)
    details = dict(metadata or {})
    document: dict[str, Any] = {
        "name": service_name,
        "version": details.get("version", "") if version is None else version,
        "instance_id": instance_id or _instance_id(http_port),
        "capabilities": [str(capability) for capability in capabilities],
        "tags": list(tags),
        "metadata": details,
    }
    # What was given is said, a weight of 0 included; whether it is acceptable is for the registry to judge.
    optional = {"zone": zone or None, "weight": weight, "lease_ttl": lease_ttl, "health_check": health_check}
    document.update({name: value for name, value in optional.items() if value is not None})
    return DiscoveryClient(
        api,
        document,
        port=http_port,
        host=host,
        required=required,
        on_error=on_error,
        max_stale=max_stale,
        snapshot_path=snapshot_path or os.environ.get("ANUMATE_SNAPSHOT") or None,
        longest_retry=longest_retry,
    )


class DiscoveryClient:
    """Made by `create_discovery_client`; belongs to the event loop that starts it.

    After a fork the child's copy is as if it had not been started, but goes on knowing what was known.
    """

    def __init__(
        self,
        api: RegistryApi,
        document: Mapping[str, Any],
        *,
        port: int,
        host: str | None = None,
        rng: Random = random.random,
        required: bool = False,
        on_error: ErrorCallback | None = None,
        max_stale: float | None = None,
        snapshot_path: str | os.PathLike[str] | None = None,
        longest_retry: float = LONGEST_RETRY,
    ) -> None:
        self.document = dict(document)
        self._api = api
        self._host = host
        self._port = port
        self._random = rng
        self.required = required
        self._on_error = on_error
        self._max_stale = max_stale
        self._longest_retry = longest_retry
        self._checks: list[HealthCheck] = []
        self._catalogue = Catalogue()
        self._file = SnapshotFile(snapshot_path, api.url) if snapshot_path else None
        self._seat = Seat(api.url, api.api_key, self.service_name, self.instance_id)
        self._signals: LeaveFirst | None = None
        self._prepare()
        _clients.add(self)

    def _prepare(self) -> None:
        """As before the first start."""
        self._started = False
        self._ending: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._watcher = Watcher(
            self._api, self._catalogue, self._file, rng=self._random, longest_retry=self._longest_retry
        )
        self._keeper = LeaseKeeper(
            self._api,
            self.document,
            self._seat,
            self._checks,
            rng=self._random,
            longest_retry=self._longest_retry,
            on_error=self._on_error,
        )

    @property
    def service_name(self) -> str:
        return str(self.document["name"])

    @property
    def instance_id(self) -> str:
        return str(self.document["instance_id"])

    @property
    def registered(self) -> bool:
        """Whether this process holds the instance's lease; of several workers behind one port, one does."""
        return self._keeper.registered

    @property
    def age(self) -> float | None:
        """Seconds since the registry last confirmed what this client answers; None before the first time.

        While nothing changes it confirms every half minute.
        """
        return None if self._watcher.heard_at is None else time.monotonic() - self._watcher.heard_at

    @property
    def is_stale(self) -> bool:
        """Whether the registry has been silent for longer than `max_stale`; never, without one."""
        age = self.age
        return self._max_stale is not None and (age is None or age > self._max_stale)

    def add_health_check_callback(self, check: HealthCheck) -> None:
        """Have `check` asked before each heartbeat. Raising or answering False means unhealthy."""
        self._checks.append(check)

    async def start(self) -> None:
        """Register, then keep the lease and watch until `stop`. Call it once the service listens.

        A registry that is away or says no is no error: it is asked again in the background.

        Raises:
            RegistryUnavailable, RegistrationRefused: the client is `required` and could not register.
        """
        if self._started:
            return
        self._prepare_again()
        self._started = True
        try:
            if self.service_name:
                await self.endpoint()
                await self._keeper.begin(required=self.required)
            await self._watcher.begin(reachable=not self._keeper.failures)
        except BaseException:
            if self._ending is None:  # else somebody stops it as it starts, perhaps with a drain
                await self.stop()
            raise

    async def stop(self, drain: float = 0.0) -> None:
        """Leave: nothing is sent any more once this returns. Called again without a drain, it cuts the drain short.

        The registry is told first, so that no new traffic comes; then `drain` seconds pass, in which requests end and
        the catalogue goes on being kept. A cancelled stop skips the rest of the drain, but not the farewell. Where
        other workers go on serving the same port, there is neither.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(drain), name="anumate stop")
        elif drain <= 0:
            self._hurry.set()
        try:
            await asyncio.shield(self._ending)
        except asyncio.CancelledError:
            self._hurry.set()
            await finish(_wait_for(self._ending))
            raise

    async def _end(self, drain: float) -> None:
        try:
            if self._started and self.service_name and await self._keeper.leave() and drain > 0:
                await self._drain(drain)
        finally:
            self._started = False
            await self._watcher.close()
            await self._api.close()
            if self._signals is not None:
                self._signals.remove()

    async def _drain(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except (TimeoutError, asyncio.CancelledError):
            return  # it is over, or everything is; in both cases what is left is to close

    def install_signal_handlers(self, *numbers: int, drain: float = 0.0) -> None:
        """On SIGTERM and SIGINT (or `numbers`), stop with this drain, then do what the handler before would have done.

        Call it in the main thread, on the client's loop, once the server has set its own handlers.
        """
        self._signals = LeaveFirst(on_loop(lambda: self.stop(drain)), numbers or (signal.SIGTERM, signal.SIGINT))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def instances(
        self,
        name: str,
        *,
        version: str = "",
        tags: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        zone: str = "",
    ) -> tuple[ServiceInstance, ...]:
        """Instances of the service that may get traffic, from memory, in a stable order; any thread may ask.

        `version` holds constraints by PEP 440, such as `>=1.4,<2`; of tags and capabilities, all are wanted; `zone` is
        preferred, and the others serve when nobody there fits. An unknown service has no instances. While nothing
        changes, a repeated question gets the same tuple.

        Raises:
            ValueError: `version` is no constraint.
        """
        return self._catalogue.find(name, version, tags, capabilities, zone)

    def watch(self, name: str) -> ChangeFeed:
        """An async iterator over `Joined`, `Left` and `Changed` of the service's instances; those already known have
        joined. It ends with `stop`. Changes that come faster than they are read are told as one."""
        feed = self._watcher.feed(name)
        if self._ending is not None:
            feed.close()
        else:
            self._watcher.ensure()
        return feed

    async def get_service_by_capability(self, capability: str) -> list[ServiceInstance]:
        """Instances that may get traffic and have this capability; from memory after the first time."""
        return [each for each in await self.get_services() if str(capability) in each.capabilities]

    async def get_service_by_name(self, name: str) -> list[ServiceInstance]:
        """Instances of the service that may get traffic; from memory after the first time."""
        await self.get_services()
        return list(self.instances(name))

    async def get_services(self) -> tuple[ServiceInstance, ...]:
        """Every instance that may get traffic.

        Raises:
            RegistryUnavailable: the registry has not answered even once, or not for longer than `max_stale`.
        """
        if self._ending is None:
            if self._watcher.heard_at is None:
                await self._watcher.fetch()
            self._watcher.ensure()
        if self.is_stale:
            raise RegistryUnavailable(f"{self._api.url} has said nothing for more than {self._max_stale:g} s")
        return self._catalogue.instances

    async def endpoint(self) -> tuple[str, int]:
        """The address and port that this service registers."""
        if "endpoints" not in self.document:
            host = self._host or await asyncio.to_thread(_address_towards, self._api.url)
            self.document["endpoints"] = {"http": {"protocol": "http", "host": host, "port": self._port}}
        web = self.document["endpoints"]["http"]
        return web["host"], web["port"]

    def _prepare_again(self) -> None:
        """A new keeper and watcher for each start, as they belong to a loop; what was heard stays heard."""
        if self._ending is not None:
            heard_at = self._watcher.heard_at
            self._prepare()
            self._watcher.heard_at = heard_at

    def _after_fork(self) -> None:
        # Kept, as what the parent's loop owns must neither be closed nor complained of here.
        _inherited.append((self._api.after_fork(), self._keeper, self._watcher, self._ending, self._signals))
        heard_at = self._watcher.heard_at
        self._seat.after_fork()
        self._signals = None
        self._prepare()
        self._watcher.heard_at = heard_at


_clients: WeakSet[DiscoveryClient] = WeakSet()
_inherited: list[object] = []


def _forked() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


async def _wait_for(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _instance_id(port: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname()).strip('.-') or 'instance'}-{port}"


def _address_towards(url: str) -> str:
    """The address of this machine that packets to the registry carry. Nothing is sent."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
