"""The control plane under gunicorn: uvicorn's worker, which lets go of long polls and streams before it stops.

gunicorn -k anumate.worker.WebWorker anumate_integration_service.app:app

uvicorn's own worker serves as well; then a client that waits for a change when a server stops loses its connection.
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from registry.live.node import get_current


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn waits for every answer that has begun: so those that wait for a change are told to end."""
        if (node := get_current()) is not None:
            node.leave()
        await super().shutdown(sockets)


class WebWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker around that server."""

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
