"""Registers an instance, keeps its lease, and leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from anumate_integration_service.checks import HealthCheck, report
from anumate_integration_service.errors import AnumateError, LeaseUnknown, RegistrationRefused, RegistryUnavailable
from anumate_integration_service.pacing import FIRST_RETRY, Random, beat_pause, retry_pause
from anumate_integration_service.registry_api import Lease, RegistryApi
from anumate_integration_service.seat import Seat

STOP_TIMEOUT: Final = 2.0
SEAT_PAUSE: Final = 1.0
"""How often a worker looks whether the one that keeps the lease is gone, in seconds."""

ErrorCallback = Callable[[AnumateError], object]

log = logging.getLogger(__name__)


class LeaseKeeper:
    """One task, so that there is never more than one attempt in flight. Belongs to the loop that begins it."""

    def __init__(
        self,
        api: RegistryApi,
        document: Mapping[str, Any],
        seat: Seat,
        checks: list[HealthCheck],
        *,
        rng: Random,
        longest_retry: float,
        on_error: ErrorCallback | None,
    ) -> None:
        self.registered = False
        self.failures = 0
        self._api = api
        self._document = document
        self._seat = seat
        self._checks = checks
        self._random = rng
        self._longest_retry = longest_retry
        self._on_error = on_error
        self._lease = Lease(30.0, 10.0)
        self._task: asyncio.Task[None] | None = None
        self._leaving = False
        self._sending = asyncio.Lock()

    async def begin(self, *, required: bool) -> None:
        """Register if nobody else on this machine speaks for the instance, then keep the lease until `leave`.

        Raises:
            RegistryUnavailable, RegistrationRefused: only if `required`.
        """
        pause = await self._turn(required=required)
        self._task = asyncio.create_task(self._keep(pause), name="anumate lease")

    async def leave(self) -> bool:
        """Send nothing more, and tell the registry if no other worker goes on. Answers whether it was told to go.

        A cancelled caller waits all the same: an instance that left without a word gets traffic until its lease ends.
        """
        self._leaving = True
        try:
            await self._settle()
        finally:
            told = await self._go()
        return told

    async def _settle(self) -> None:
        # What is being sent is let through: cut off, it could register the instance after it has left.
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT), self._sending:
                pass
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self, pause: float) -> None:
        try:
            while True:
                await asyncio.sleep(pause)
                pause = await self._turn()
        except asyncio.CancelledError:
            if not self._leaving:  # the loop ends, and nobody has called `leave`
                await self._go()
                await self._api.close()
            raise

    async def _turn(self, *, required: bool = False) -> float:
        """Do what is due; answers how long to wait for the next turn."""
        if not self._seat.take():
            return SEAT_PAUSE * (0.5 + self._random())
        try:
            await (self._beat() if self.registered else self._register())
        except (RegistryUnavailable, RegistrationRefused) as error:
            if required:
                raise
            return self._failed(error)
        self.failures = 0
        return beat_pause(self._lease.heartbeat_interval, self._random)

    async def _beat(self) -> None:
        name, instance_id = self._document["name"], self._document["instance_id"]
        said = await report(self._checks)
        try:
            async with self._sending:
                if not self._leaving:
                    await self._api.heartbeat(name, instance_id, said)
        except LeaseUnknown:
            self.registered = False
            log.info("the lease of %s is gone; registering again", instance_id)
            await self._register()

    async def _register(self) -> None:
        async with self._sending:
            if not self._leaving:
                self._lease = await self._api.register(self._document)
                self.registered = True

    def _failed(self, error: AnumateError) -> float:
        self.failures += 1
        if isinstance(error, RegistrationRefused):
            log.error("the registry refuses %s: %s", self._document["instance_id"], error)
            self._tell(error)
        elif self.failures == 1:
            log.warning("the registry is away%s: %s", "" if self.registered else ", so not registered yet", error)
        # Back before the registry would take a lease of the usual length for lapsed.
        cap = min(self._longest_retry, max(self._lease.heartbeat_interval, FIRST_RETRY))
        return retry_pause(error, self.failures, self._random, cap=cap)

    def _tell(self, error: AnumateError) -> None:
        if self._on_error is None:
            return
        try:
            self._on_error(error)
        except Exception:
            log.exception("the on_error callback failed")

    async def _go(self) -> bool:
        self.registered = False
        if not self._seat.leave():
            return False
        try:
            await finish(self._deregister())
        finally:
            self._seat.release()
        return True

    async def _deregister(self) -> None:
        with suppress(asyncio.CancelledError):
            return await self._say_so()
        # asyncio.run cancels every task as it ends; this one is worth the moment that it takes.
        return await self._say_so()

    async def _say_so(self) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._api.deregister(self._document["name"], self._document["instance_id"])
        except LeaseUnknown:
            log.debug("left, and was not known any more")
        except (RegistryUnavailable, RegistrationRefused, TimeoutError) as error:
            log.warning("left without saying so; the lease will end by itself: %s", error)


async def finish(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end though the caller is cancelled; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
