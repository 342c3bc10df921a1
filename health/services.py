"""What health does for others: a turn at the checks, and the configuration of a check."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from functools import cache
from random import Random
from typing import Any, cast

import uvloop
from django.conf import settings
from django.db import transaction

from anumate.lib.redis import UNAVAILABLE, connect, connect_async
from health.journal import Clerk
from health.models import HealthCheck
from health.roster import Roster
from health.shift import Shift, Slots
from registry.live.catalog import Catalog
from registry.models import Service, Tenant
from registry.services.changes import Actor, change
from registry.services.operator import find_target

logger = logging.getLogger(__name__)

stopping = threading.Event()
"""Set when this process is asked to end: a turn ends with it."""


class Worker:
    """What one process remembers from turn to turn: who is registered, and which checks there are."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.roster = Roster(Catalog())
        self.clerk = Clerk(connect(redis_url))
        self.slots = Slots()
        self.random = Random()
        self._turning = threading.Lock()

    def turn(self) -> None:
        """Make the checks that are due, unless somebody is at it, here or in another worker.

        A turn runs in a thread of its own, which outlives this call while a target keeps it waiting. So checks hold
        one thread of the pool at most, and the other periodic work always finds one.
        """
        if not self._turning.acquire(blocking=False):
            return
        try:
            claimed: Future[None] = Future()
            threading.Thread(target=self._run, args=(claimed,), name="health turn").start()
            claimed.result()
        finally:
            self._turning.release()

    def _run(self, claimed: Future[None]) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._turn(claimed))
        except UNAVAILABLE as error:
            logger.warning("no checks are made while the store is away: %s", error)
        except Exception as error:
            if claimed.done():
                logger.exception("what was still being checked got no verdict")
            else:
                claimed.set_exception(error)
        finally:
            if not claimed.done():
                claimed.set_result(None)

    async def _turn(self, claimed: Future[None]) -> None:
        client = connect_async(self.redis_url)
        try:
            shift = Shift(client, self.roster, self.clerk, self.slots, random=self.random, stopping=stopping)
            await shift.run()
            if shift.in_flight:
                claimed.set_result(None)
            await shift.see_off()
        finally:
            await client.aclose()


def configure(actor: Actor, tenant: Tenant, service_name: str, **fields: Any) -> tuple[HealthCheck, bool]:
    """Have a service, or one instance of it, checked like this from now on; answers whether the check is new.

    It takes the place of the check of the same kind and endpoint, whatever its path. Where somebody has made several of
    those, for different paths, the path says which one is meant.

    Raises:
        Problem: not_found, when neither rows nor live state know the service, or the instance that a new check names.
    """
    with transaction.atomic():
        service = cast("Service", find_target(actor, tenant, service_name))
        instance_id = fields.get("instance_id", "")
        rows = HealthCheck.objects.filter(
            service=service,
            instance_id=instance_id,
            check_type=fields["check_type"],
            endpoint=fields.get("endpoint", ""),
        )
        same_path = rows.filter(path=fields.get("path", "")).first()
        check = same_path or (rows.get() if rows.count() == 1 else HealthCheck(service=service))
        created = check.pk is None
        if created and instance_id:
            # One that was here before may come back; one that nobody ever saw is a slip of the pen. A check that is
            # there already can be changed or switched off, whatever became of its instance.
            find_target(actor, tenant, service_name, instance_id)
        with change(actor, "created" if created else "changed", check):
            for name, value in fields.items():
                setattr(check, name, value)
            check.save()
    return check, created


@cache
def worker() -> Worker:
    """This process's worker; made when it is first needed, so that a forked child gets one of its own."""
    return Worker(settings.REDIS_URL)
