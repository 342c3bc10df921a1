"""How a worker leaves: it takes no new connections, answers what is under way, and ends what does not end in time.

uvicorn closes idle connections the moment it is told to stop, and loses every request that is on its way on one. Here
an idle connection stays open for one more request (`gateway.proxy.server.Server.shutdown`), whose answer tells the
client that it was the last: RFC 9112 §9.6.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import ServerState

from gateway.proxy.door import Door

logger = logging.getLogger("anumate.gateway.server")

STEP_SECONDS: Final = 0.05
CUT_SECONDS: Final = 0.5
"""For so long, what was cut off may still write out what it has buffered, and notice."""


class State(ServerState):
    """What a server's connections share; one that comes up while it drains is told to be brief."""

    draining = False


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which ends with status 0 once everything under way is answered, at most `seconds` later.

    The application is told by its method `drain`. Its first and its last line in the log are for whoever replaces one
    worker by the next. SIGTERM may come again and again, as gunicorn sends it; SIGINT and
    SIGQUIT during the drain end it at once.
    """

    def __init__(self, config: uvicorn.Config, seconds: float) -> None:
        super().__init__(config)
        self.server_state: State = State()
        self._seconds = seconds
        self._doors: list[Door] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not kept to be raised again afterwards, as uvicorn does: who was told to end and does has ended well.
        if self.should_exit and sig != signal.SIGTERM:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None:
            await super().startup(sockets)
        else:
            await self._open_doors(self.config.ssl, sockets or [self.config.bind_socket()])
        logger.info("worker %d is serving", os.getpid())

    async def _open_doors(self, context: ssl.SSLContext, sockets: list[socket.socket]) -> None:
        """As uvicorn starts up, but for who is waited for."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        config, app = self.config, self.config.loaded_app
        server = partial(
            cast(Any, config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self._doors = [Door(each, context, app.connections, app.head_limits.seconds, server) for each in sockets]
        self.servers = self._doors  # type: ignore[assignment]  # what is asked of them, they have
        for door in self._doors:
            door.open(config.backlog)
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        self.server_state.draining = True
        _tell(self.config.loaded_app)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        logger.info("draining %d connections for at most %g s", len(self.server_state.connections), self._seconds)
        if not await self._empty(self._seconds):
            await self._cut()
        await self.lifespan.shutdown()
        logger.info("worker %d has drained", os.getpid())

    async def _empty(self, seconds: float, *, cut: bool = False) -> bool:
        """Wait until nothing is under way; whether that came to be in time."""
        loop = asyncio.get_running_loop()
        deadline, beat = loop.time() + seconds, 0.0
        state = self.server_state
        while state.connections or state.tasks or any(door.busy for door in self._doors):
            now = loop.time()
            if now >= deadline or (self.force_exit and not cut):
                return False
            if self.config.callback_notify is not None and now >= beat:
                beat = now + 1.0
                await self.config.callback_notify()  # gunicorn kills a worker that shows no life
            await asyncio.sleep(STEP_SECONDS)
        return True

    async def _cut(self) -> None:
        """End what is left: first as if its client had gone, so that it is let go of in order, then by force."""
        state = self.server_state
        logger.warning("cutting off %d connections", len(state.connections))
        for door in self._doors:
            door.cut()
        for connection in list(state.connections):
            connection.transport.close()
        if not await self._empty(CUT_SECONDS, cut=True):
            for connection in list(state.connections):
                connection.transport.abort()
            tasks = list(state.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _tell(app: Any) -> None:
    drain = getattr(app, "drain", None)
    if drain is not None:
        drain()
