"""Registers an ASGI application (FastAPI, Starlette, Django, or none of them) while its server serves it.

app = DiscoveryLifespan(app, create_discovery_client(service_name="orders", http_port=8000), drain=5)
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anumate_integration_service.client import DiscoveryClient
from anumate_integration_service.errors import AnumateError
from anumate_integration_service.listening import until_served
from anumate_integration_service.signals import LeaveFirst, on_loop

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class DiscoveryLifespan:
    """Wraps an application; everything but its lifespan passes through.

    The instance is registered once the application has started and its port takes connections. Where registration is
    `required`, it comes before the port opens, so that a failure can still end the server. On SIGTERM and SIGINT it
    leaves first and waits `drain` seconds, and then the server stops; `handle_signals=False` leaves signals alone, and
    then it leaves as the server, no longer listening, ends the lifespan.
    """

    def __init__(self, app: App, client: DiscoveryClient, *, drain: float = 0.0, handle_signals: bool = True) -> None:
        self.app = app
        self.client = client
        self._drain = drain
        self._handle_signals = handle_signals
        self._starting: asyncio.Task[None] | None = None
        self._signals: LeaveFirst | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        involved = False

        async def receive_and_leave() -> Message:
            nonlocal involved
            involved = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._leave()
            return message

        async def join_and_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                message = await self._join(message)
            await send(message)

        try:
            await self.app(scope, receive_and_leave, join_and_send)
        except Exception:
            if involved:
                raise
            # An application without a lifespan says so by raising, Django's for one. It is served all the same.
            await self._alone(receive_and_leave, join_and_send)
        finally:
            await self._leave()

    async def _alone(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await send({"type": "lifespan.shutdown.complete"})

    async def _join(self, complete: Message) -> Message:
        """What to tell the server."""
        if self.client.required:
            try:
                await self.client.start()
            except AnumateError as error:
                return {"type": "lifespan.startup.failed", "message": f"not registered: {error}"}
        else:
            self._starting = asyncio.create_task(self._join_when_served(), name="anumate start")
        if self._handle_signals and threading.current_thread() is threading.main_thread():
            self._signals = LeaveFirst(on_loop(lambda: self._leave(self._drain)), (signal.SIGTERM, signal.SIGINT))
        return complete

    async def _join_when_served(self) -> None:
        await until_served(self.client)
        await self.client.start()

    async def _leave(self, drain: float = 0.0) -> None:
        # Before its start is cut off, which would have it leave at once, without the drain.
        ending = asyncio.create_task(self.client.stop(drain), name="anumate leave")
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        await ending
        signals, self._signals = self._signals, None
        if signals is not None:
            signals.remove()
