"""What health does for others: a turn at the checks, and the configuration of a check."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import cache
from random import Random

import uvloop
from django.conf import settings
from registry.live.catalog import Catalog

from anumate.lib.redis import UNAVAILABLE, connect, connect_async
from health.journal import Clerk
from health.roster import Roster
from health.shift import Shift

logger = logging.getLogger(__name__)

stopping = threading.Event()
"""Set when this process is asked to end: a turn ends with it."""


class Worker:
    """What one process remembers from turn to turn: who is registered, and which checks there are."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self.roster = Roster(Catalog())
        self.clerk = Clerk(connect(redis_url))
        self.random = Random()

    def turn(self) -> None:
        """Make the checks that are due, unless another worker is at it."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._turn())
        except UNAVAILABLE as error:
            logger.warning("no checks are made while the store is away: %s", error)

    async def _turn(self) -> None:
        client = connect_async(self.redis_url)
        try:
            await Shift(client, self.roster, self.clerk, random=self.random, stopping=stopping).run()
        finally:
            await client.aclose()


@cache
def worker() -> Worker:
    """This process's worker; made when it is first needed, so that a forked child gets one of its own."""
    return Worker(settings.REDIS_URL)
