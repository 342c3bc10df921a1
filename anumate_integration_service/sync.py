"""The discovery client for code without an event loop: one private thread runs one.

client = SyncDiscoveryClient(service_name="orders", http_port=8000)
client.start()
client.instances("mail")
client.stop()
"""

from __future__ import annotations

import asyncio

# Now, so that in a forked child its locks are made anew before our thread, begun by a later hook, waits for one.
import concurrent.futures.thread  # noqa: F401
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from anumate_integration_service.changes import Change, ChangeFeed
from anumate_integration_service.client import DiscoveryClient, HealthCheck, create_discovery_client
from anumate_integration_service.errors import AnumateError
from anumate_integration_service.instances import ServiceInstance
from anumate_integration_service.listening import until_served
from anumate_integration_service.registry_api import load

T = TypeVar("T")

LONGEST_FAREWELL: Final = 10.0
"""Seconds, besides the drain, after which `stop` gives up on its thread, which dies with the process."""


class SyncDiscoveryClient:
    """Takes what `create_discovery_client` takes. Any thread may call it.

    A child forked while it runs begins a thread of its own at once, so that one of gunicorn's workers goes on when the
    process that loaded the application is gone.
    """

    def __init__(self, **options: Any) -> None:
        load()
        self._client: DiscoveryClient = create_discovery_client(**options)
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started = self._waiting = False
        _clients.add(self)

    @property
    def service_name(self) -> str:
        return self._client.service_name

    @property
    def instance_id(self) -> str:
        return self._client.instance_id

    @property
    def registered(self) -> bool:
        """Whether this process holds the instance's lease."""
        return self._client.registered

    @property
    def age(self) -> float | None:
        """Seconds since the registry last confirmed what this client answers; None before the first time."""
        return self._client.age

    @property
    def is_stale(self) -> bool:
        """Whether the registry has been silent for longer than `max_stale`; never, without one."""
        return self._client.is_stale

    def add_health_check_callback(self, check: HealthCheck) -> None:
        """Have `check` asked before each heartbeat. Raising or answering False means unhealthy."""
        self._client.add_health_check_callback(check)

    def start(self) -> None:
        """Register, then keep the lease and watch until `stop`. Call it once the service listens.

        Raises:
            RegistryUnavailable, RegistrationRefused: the client is `required` and could not register.
        """
        with self._lock:
            if self._started:
                return
            self._started = True
            try:
                self._call(self._client.start)
            except BaseException:
                self.stop()
                raise

    def start_when_listening(self) -> None:
        """`start`, once the service's own port takes connections; a child forked meanwhile does likewise."""
        self._waiting = True
        with suppress(CancelledError):  # it was stopped before
            self._call(lambda: until_served(self._client))
            self.start()

    def stop(self, drain: float = 0.0) -> None:
        """Leave, wait `drain` seconds for requests to end, and end the thread. Calling it again does nothing."""
        with self._lock:
            if self._loop is None or self._thread is None:
                return
            self._started = self._waiting = False
            try:
                with suppress(TimeoutError):  # never wait for ever, as a server's own end may depend on this one
                    self._call(lambda: self._client.stop(drain), timeout=drain + LONGEST_FAREWELL)
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(LONGEST_FAREWELL)
                self._loop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def instances(
        self,
        name: str,
        *,
        version: str = "",
        tags: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        zone: str = "",
    ) -> tuple[ServiceInstance, ...]:
        """Instances of the service that may get traffic, from memory; as `DiscoveryClient.instances`."""
        return self._client.instances(name, version=version, tags=tags, capabilities=capabilities, zone=zone)

    def get_service_by_capability(self, capability: str) -> list[ServiceInstance]:
        """Instances that may get traffic and have this capability; from memory after the first time."""
        return self._call(lambda: self._client.get_service_by_capability(capability))

    def get_service_by_name(self, name: str) -> list[ServiceInstance]:
        """Instances of the service that may get traffic; from memory after the first time."""
        return self._call(lambda: self._client.get_service_by_name(name))

    def get_services(self) -> tuple[ServiceInstance, ...]:
        """Every instance that may get traffic.

        Raises:
            RegistryUnavailable: the registry has not answered even once, or not for longer than `max_stale`.
        """
        return self._call(self._client.get_services)

    def watch(self, name: str) -> Iterator[Change]:
        """Blocks for each `Joined`, `Left` and `Changed` of the service's instances, until `stop`."""

        async def open_feed() -> ChangeFeed:
            return self._client.watch(name)

        feed = self._call(open_feed)
        while (change := self._next(feed)) is not None:
            yield change

    def _next(self, feed: ChangeFeed) -> Change | None:
        async def following() -> Change | None:
            return await anext(feed, None)

        with suppress(AnumateError, CancelledError):
            return self._call(following, begin=False)
        return None

    def _call(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, begin: bool = True, timeout: float | None = None
    ) -> T:
        if threading.current_thread() is self._thread:
            raise RuntimeError("Called from a callback of the client itself; use the asynchronous client there.")
        loop = self._running_loop() if begin else self._loop
        if loop is None:
            raise AnumateError("The client has been stopped.")
        return asyncio.run_coroutine_threadsafe(work(), loop).result(timeout)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        # Without the lock first: what is called while it starts or stops must not wait for that to end.
        if (loop := self._loop) is not None:
            return loop
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="anumate discovery", daemon=True)
                self._thread.start()
            return self._loop

    def _after_fork(self) -> None:
        # Kept, and unused: the loop and its selector are the parent's, and the lock may be held by a thread not here.
        _inherited.append((self._loop, self._thread, self._lock))
        self._lock, self._loop, self._thread = threading.RLock(), None, None
        if self._started or self._waiting:
            self._started = True
            asyncio.run_coroutine_threadsafe(_begin_again(self._client), self._running_loop())


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread: the loop until it is stopped, then whatever still waits in it is told that it is over."""
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _begin_again(client: DiscoveryClient) -> None:
    """The parent has registered or will, so a child that cannot is no reason to fail."""
    if client.service_name:
        await until_served(client)
    with suppress(AnumateError):
        await client.start()


_clients: WeakSet[SyncDiscoveryClient] = WeakSet()
_inherited: list[object] = []


def _forked() -> None:
    for client in list(_clients):
        client._after_fork()


# Imported after `client`, so this runs after the asynchronous client in it has been made anew.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
