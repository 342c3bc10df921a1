"""The control plane under gunicorn: uvicorn's worker, with the gateway's limits on what a request's head may be and how
long it may take to come, which lets go of long polls and streams before it stops.

gunicorn -k anumate.worker.WebWorker anumate_integration_service.app:app

uvicorn's own worker serves as well, without either.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from gateway.proxy.server import Server as Limited
from registry.live.node import get_current


class Protocol(Limited):
    """The gateway's, under the control plane's name."""

    log = logging.getLogger("anumate.front")
    signature = ()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for every answer that has begun: so those that wait for a change are told to end."""
        if (node := get_current()) is not None:
            node.leave()
        await super().shutdown(sockets)


class WebWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker around that server."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "http": Protocol}

    def init_process(self) -> None:
        os.environ["WEB_CONCURRENCY"] = str(self.cfg.workers)  # what the command line says, for the app to be loaded
        super().init_process()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _Server(self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
