"""The gateway under gunicorn.

gunicorn -k gateway.proxy.worker.GatewayWorker anumate_integration_service.app:gateway
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from gateway.proxy.config import SERVER_OPTIONS
from gateway.proxy.drain import DrainingServer

logger = logging.getLogger("anumate.gateway.server")


class GatewayWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with the gateway's options and the gateway's way to leave."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, **SERVER_OPTIONS}

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config, self.wsgi.drain_seconds)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
