"""The gateway under gunicorn.

gunicorn -k gateway.proxy.worker.GatewayWorker anumate_integration_service.app:gateway
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Final

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from gateway.proxy.certificates import Certificates, listening
from gateway.proxy.config import SERVER_OPTIONS
from gateway.proxy.drain import DrainingServer

AGAIN_SECONDS: Final = 5.0
"""Until gunicorn may try again to start a worker that could not."""


class GatewayWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with the gateway's options, its way to leave, and an eye on its certificate."""

    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, **SERVER_OPTIONS}

    def init_process(self) -> None:
        """gunicorn stops altogether where a worker cannot start. That is right at first, and wrong where it is to take
        the place of one that serves: then the others serve on, and it is tried again.
        """
        try:
            super().init_process()
        except (Exception, SystemExit) as error:
            first = self.age <= self.cfg.workers
            if first or (isinstance(error, SystemExit) and error.code != Arbiter.WORKER_BOOT_ERROR):
                raise
            self.log.error("worker %d cannot start, the others serve on: %r", self.pid, error)
            time.sleep(AGAIN_SECONDS)
            sys.exit(1)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        server = DrainingServer(self.config, self.wsgi.drain_seconds)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        watching: asyncio.Task[None] | None = None
        if self.config.ssl is not None:
            files = self.cfg.certfile, self.cfg.keyfile or "", self.cfg.ca_certs or ""
            self.config.ssl = listening(*files)
            watching = asyncio.create_task(Certificates(self.config.ssl, lambda: listening(*files), *files).watch())
        await server.serve(sockets=self.sockets)
        if watching is not None:
            watching.cancel()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
