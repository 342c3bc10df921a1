"""`/ws/live/`: a snapshot of one tenant's picture, then what changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs

import msgspec
from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from anumate.faces.access import choose_tenant, tenants_of
from anumate.faces.broadcast import Broadcaster
from anumate.faces.goodbye import logout_group
from anumate.faces.hub import Seat
from anumate.faces.source import broadcaster
from anumate.lib.clock import wall
from anumate.lib.redis import UNAVAILABLE

SIGNED_OUT = 4401
NOT_ALLOWED = 4403
NOT_READY = 4503
PING_SECONDS = 20.0

logger = logging.getLogger(__name__)


def refusal(user: AbstractBaseUser | AnonymousUser) -> int:
    """The code of a close that tells the page why it is shown nothing."""
    return NOT_ALLOWED if user.is_authenticated else SIGNED_OUT


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """One open page."""

    # The page must open while Redis is away, so no channel of the layer is a condition for it: see `_hear_logout`.
    channel_layer_alias = ""

    live: Broadcaster | None = None
    seat: Seat | None = None
    tasks: tuple[asyncio.Task[None], ...] = ()

    async def connect(self) -> None:
        # Accepted before it may be refused: a script reads the code of a close, never the status of a refusal.
        await self.accept()
        user = self.scope["user"]
        tenant = await self._tenant_for(user)
        self.live = broadcaster()
        if tenant is None:
            await self.close(refusal(user))
        elif self.live is None:
            await self.close(NOT_READY)
        else:
            self.seat = await self.live.join(tenant)
            self.tasks = tuple(map(self._start, (self._show(self.seat), self._ping(), self._hear_logout())))

    async def disconnect(self, code: int) -> None:
        for task in self.tasks:
            task.cancel()
        if self.live and self.seat:
            self.live.leave(self.seat)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """The page has nothing to say; what arrives is dropped."""

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(self._or_close(work))

    async def _or_close(self, work: Coroutine[Any, Any, None]) -> None:
        """A socket whose news has stopped must not look alive: it is closed, and the page opens another."""
        try:
            await work
        except Exception:
            logger.exception("A live page's socket broke off")
            await self.close(1011)

    async def _show(self, seat: Seat) -> None:
        while True:
            await self.send(text_data=await seat.next())

    async def _ping(self) -> None:
        """Says the time now and then, and looks whether this person may still look."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            user = await self._current_user()
            if await self._tenant_for(user) is None:
                await self.close(refusal(user))
                return
            await self.send(text_data=msgspec.json.encode({"type": "ping", "at": wall()}).decode())

    async def _hear_logout(self) -> None:
        """Ends the page the moment the person signs out. Should that message be lost, the next ping makes it good."""
        layer = get_channel_layer()
        group = logout_group(self.scope["user"].pk)
        try:
            channel = await layer.new_channel()
            await layer.group_add(group, channel)
        except UNAVAILABLE:
            return
        try:
            await layer.receive(channel)
        finally:
            await layer.group_discard(group, channel)
        await self.close(SIGNED_OUT)

    async def _current_user(self) -> AbstractBaseUser | AnonymousUser:
        """The person as their session stands now; the one in the scope is from when the socket was opened."""
        session = self.scope["session"]
        fresh = session.__class__(session.session_key)  # `type` would name the lazy wrapper
        user: AbstractBaseUser | AnonymousUser = await get_user({"session": fresh})
        return user

    async def _tenant_for(self, user: AbstractBaseUser | AnonymousUser) -> str | None:
        wanted = parse_qs(self.scope["query_string"].decode("latin-1")).get("tenant", [""])[0]
        return choose_tenant(await database_sync_to_async(tenants_of)(user), wanted)
