"""The gateway under gunicorn.

gunicorn -k gateway.proxy.worker.GatewayWorker anumate_integration_service.app:gateway

HUP replaces all workers: new ones are started on the same listening socket, the old ones drain (see `upgrading.py`).
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from anumate.lib import env
from gateway.proxy.certificates import Certificates
from gateway.proxy.config import SERVER_OPTIONS


class GatewayWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with the gateway's options, its patience at the end, and an eye on its certificate."""

    CONFIG_KWARGS = {
        **UvicornWorker.CONFIG_KWARGS,
        **SERVER_OPTIONS,
        "timeout_graceful_shutdown": env.read().gateway_drain_seconds,
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        watching: asyncio.Task[None] | None = None
        if self.config.ssl is not None:
            certificates = Certificates(self.config.ssl, self.cfg.certfile, self.cfg.keyfile or self.cfg.certfile)
            watching = asyncio.create_task(certificates.watch())
        server = uvicorn.Server(self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if watching is not None:
            watching.cancel()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
