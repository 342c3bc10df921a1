"""The discovery client: registers a service, keeps its lease, and answers from memory who else is there.

    client = create_discovery_client(service_name="orders", http_port=8000)
    await client.start()        # once the service listens
    ...
    await client.stop()         # before it stops listening

An outage of the registry stops nothing here: what was known last goes on being answered, and the instance registers
again, with back-off, until the registry is back.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from anumate_integration_service.errors import LeaseUnknown, RegistrationRefused, RegistryUnavailable
from anumate_integration_service.instances import ServiceInstance
from anumate_integration_service.registry_api import Lease, Listing, RegistryApi

DEFAULT_URL = "http://localhost:8090"
JITTER = 0.1
FIRST_RETRY, LONGEST_RETRY = 0.5, 30.0
WATCH_WAIT = 30.0
# Changes that come faster than this are read together.
WATCH_PAUSE = 0.1
CHECK_TIMEOUT = 5.0
STOP_TIMEOUT = 2.0

HealthCheck = Callable[[], object | Awaitable[object]]
Random = Callable[[], float]

log = logging.getLogger(__name__)


def create_discovery_client(
    *,
    service_name: str,
    http_port: int,
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
) -> DiscoveryClient:
    """A client for the service that listens on `http_port`.

    `registry_url` and `api_key` default to `ANUMATE_URL` and `ANUMATE_API_KEY`, `host` to the address of this machine
    that reaches the registry, `version` to `metadata["version"]`, `instance_id` to the machine's name and the port, so
    that several workers behind one port are one instance. `health_check` asks the platform to check the instance, as in
    `POST /v1/health/configure`.

    Raises:
        ValueError: the registry's address is none.
    """
    url = registry_url or os.environ.get("ANUMATE_URL") or DEFAULT_URL
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
        RegistryApi(url, api_key or os.environ.get("ANUMATE_API_KEY", "")), document, port=http_port, host=host
    )


class DiscoveryClient:
    """Made by `create_discovery_client`; belongs to the event loop that starts it."""

    def __init__(
        self,
        api: RegistryApi,
        document: Mapping[str, Any],
        *,
        port: int,
        host: str | None = None,
        rng: Random = random.random,
    ) -> None:
        self.document = dict(document)
        self.registered = False
        self._api = api
        self._host = host
        self._port = port
        self._random = rng
        self._checks: list[HealthCheck] = []
        self._lease = Lease(30.0, 10.0)
        self._keeper: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._index = ""
        self._instances: tuple[ServiceInstance, ...] = ()
        self._heard_at: float | None = None

    @property
    def service_name(self) -> str:
        return str(self.document["name"])

    @property
    def instance_id(self) -> str:
        return str(self.document["instance_id"])

    @property
    def age(self) -> float | None:
        """Seconds since the registry last confirmed what this client answers; None before the first time."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

    def add_health_check_callback(self, check: HealthCheck) -> None:
        """Have `check` asked before each heartbeat. Raising or answering False means unhealthy."""
        self._checks.append(check)

    async def start(self) -> None:
        """Register, then keep the lease until `stop`. Call it once the service listens.

        A registry that is away is no error: registration goes on in the background.

        Raises:
            RegistrationRefused: the registry said no, and would say so again.
        """
        if self._keeper is not None:
            return
        if "endpoints" not in self.document:
            host = self._host or await asyncio.to_thread(_address_towards, self._api.url)
            self.document["endpoints"] = {"http": {"protocol": "http", "host": host, "port": self._port}}
        failures = 0
        try:
            await self._register()
        except RegistryUnavailable as error:
            failures = 1
            log.warning("not registered yet: %s", error)
        self._keeper = asyncio.create_task(self._keep_lease(failures), name="anumate lease")

    async def stop(self) -> None:
        """Leave: nothing is sent any more once this returns. Calling it again does nothing."""
        tasks = [task for task in (self._keeper, self._watcher) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = self._watcher = None
        if self.registered:
            self.registered = False
            await self._leave()
        await self._api.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def get_service_by_capability(self, capability: str) -> list[ServiceInstance]:
        """Instances that may get traffic and have this capability; from memory after the first time."""
        return [each for each in await self.get_services() if str(capability) in each.capabilities]

    async def get_service_by_name(self, name: str) -> list[ServiceInstance]:
        """Instances of the service that may get traffic; from memory after the first time."""
        return [each for each in await self.get_services() if each.name == name]

    async def get_services(self) -> tuple[ServiceInstance, ...]:
        """Every instance that may get traffic.

        Raises:
            RegistryUnavailable: the registry has not answered even once; afterwards, never.
        """
        if self._heard_at is None:
            self._hear(await self._api.services())
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="anumate watch")
        return self._instances

    async def _keep_lease(self, failures: int) -> None:
        while True:
            await asyncio.sleep(self._pause(failures))
            try:
                await (self._beat() if self.registered else self._register())
                failures = 0
            except RegistryUnavailable as error:
                failures += 1
                self._say_once(failures, logging.WARNING, f"the registry is away: {error}")
                if error.retry_after:
                    await asyncio.sleep(min(error.retry_after, LONGEST_RETRY))
            except RegistrationRefused as error:
                # A revoked key may be given back, so it is asked again; but seldom.
                failures = max(failures + 1, 10)
                self._say_once(failures - 9, logging.ERROR, f"the registry refuses this instance: {error}")

    async def _beat(self) -> None:
        try:
            await self._api.heartbeat(self.service_name, self.instance_id, await self._report())
        except LeaseUnknown:
            self.registered = False
            log.info("the lease of %s is gone; registering again", self.instance_id)
            await self._register()

    async def _register(self) -> None:
        self._lease = await self._api.register(self.document)
        self.registered = True

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._api.deregister(self.service_name, self.instance_id)
        except (LeaseUnknown, RegistryUnavailable, RegistrationRefused, TimeoutError) as error:
            log.warning("left without saying so; the lease will end by itself: %s", error)

    async def _report(self) -> dict[str, str]:
        """What a heartbeat carries: the worst that the callbacks say."""
        if not self._checks:
            return {}
        outputs = [output for check in self._checks if (output := await _ask(check))]
        return {"status": "unhealthy", "output": "; ".join(outputs)} if outputs else {"status": "healthy"}

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                self._hear(await self._api.services(self._index, WATCH_WAIT))
                failures = 0
                await asyncio.sleep(WATCH_PAUSE)
            except (RegistryUnavailable, RegistrationRefused) as error:
                failures += 1
                self._say_once(failures, logging.WARNING, f"going on with what is known: {error}")
                await asyncio.sleep(full_jitter(failures, self._random))

    def _hear(self, listing: Listing) -> None:
        self._index, self._instances = listing.index, listing.instances
        self._heard_at = time.monotonic()

    def _pause(self, failures: int) -> float:
        if failures:
            return full_jitter(failures, self._random, cap=max(self._lease.heartbeat_interval, FIRST_RETRY))
        return self._lease.heartbeat_interval * (1 + JITTER * (2 * self._random() - 1))

    def _say_once(self, failures: int, level: int, sentence: str) -> None:
        if failures == 1:
            log.log(level, sentence)


def full_jitter(failures: int, rng: Random, *, cap: float = LONGEST_RETRY) -> float:
    """How long to wait after this many failures in a row: anything up to a doubling limit, so that a thousand clients
    do not come back in the same second."""
    return rng() * min(cap, FIRST_RETRY * 2.0 ** min(failures - 1, 16))


async def _ask(check: HealthCheck) -> str:
    """Why the check says unhealthy; empty when it does not."""
    name = getattr(check, "__name__", type(check).__name__)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            if inspect.iscoroutinefunction(check):
                answer = await check()
            else:
                answer = await asyncio.to_thread(check)
                if inspect.isawaitable(answer):
                    answer = await answer
    except TimeoutError:
        return f"{name} did not answer in {CHECK_TIMEOUT:g} s"
    except Exception as error:
        return f"{name}: {error or type(error).__name__}"
    return f"{name} answered False" if answer is False else ""


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
