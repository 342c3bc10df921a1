"""Where clients that come by TLS agree on it, before the server hears of them: in bounded time, and counted.

asyncio's servers do it unseen, for a minute: who opens connections and says nothing could use up the open files.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Final

from gateway.proxy.connections import Connections
from gateway.proxy.server import LAST_SECONDS

AT_ONCE: Final = 64
"""So many connections are accepted before others have their turn."""
AGAIN_SECONDS: Final = 1.0
"""Until the next is accepted after one could not be, as a rule for want of open files."""

logger = logging.getLogger("anumate.gateway.server")


class Door:
    """A listening socket. Each connection gets a protocol made by `server` once its handshake is done."""

    def __init__(
        self,
        listener: socket.socket,
        context: SSLContext,
        others: Connections,
        seconds: float,
        server: Callable[[], asyncio.Protocol],
    ) -> None:
        self.sockets = (listener,)
        self._listener = listener
        self._context = context
        self._others = others
        self._seconds = seconds
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    def open(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._wait()

    def close(self) -> None:
        """Let nobody in any more. Who has begun may finish, in the time that an idle connection has for a request."""
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()
        self._listener.close()
        self._loop.call_later(LAST_SECONDS, self.cut)

    def cut(self) -> None:
        """Let go of those that have yet to agree."""
        for task in self._handshakes:
            task.cancel()

    @property
    def busy(self) -> bool:
        """Whether there are any."""
        return bool(self._handshakes)

    def _wait(self) -> None:
        self._again = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker took it, or it is gone
            except OSError as error:
                logger.error("cannot accept connections: %s", error)
                self._loop.remove_reader(self._listener)
                self._again = self._loop.call_later(AGAIN_SECONDS, self._wait)
                return
            if not self._others.knock(connection, self._loop.time()):
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._shake_hands(connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._server, connection, ssl=self._context, ssl_handshake_timeout=self._seconds
            )
        except OSError as error:  # ssl.SSLError is one
            logger.debug("a client did not agree on TLS: %s", error)
        finally:
            self._others.leave(connection)
