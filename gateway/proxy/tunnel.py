"""A WebSocket through the gateway: bytes pass both ways as they come, their frames are looked at on the way.

Neither side is read faster than the other one takes it. A side that breaks the protocol or a limit, keeps silent for
too long or is gone ends the whole; as far as a frame can still be put in, the others are told with a Close frame.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from gateway.proxy.frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    FrameError,
    Frames,
    close_frame,
)
from gateway.proxy.policies import WebSockets

Lost = Callable[[Exception | None], None]
"""Who is told that a connection is gone."""
GOODBYE_SECONDS: Final = 5.0
"""How long a side that was told to end may take for it."""


class End(asyncio.Protocol):
    """One side of a tunnel. `frames` are those that it sends."""

    def __init__(self, tunnel: Tunnel, frames: Frames, on_lost: Lost | None = None) -> None:
        self._tunnel = tunnel
        self._on_lost = on_lost
        self.frames = frames
        self.other: End
        self.transport: asyncio.Transport
        self.told = False
        """A Close frame was put in for it: nothing more may be sent to it."""
        self.gone = False

    def data_received(self, data: bytes) -> None:
        self._tunnel.came(self, data)

    def pause_writing(self) -> None:
        if not self.other.gone:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.gone:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self._on_lost is not None:
            self._on_lost(exc)
        self._tunnel.lost(self)

    def say(self, code: int, why: str) -> None:
        """Put in a Close frame, if what was sent so far is whole frames, and close."""
        if self.gone or self.transport.is_closing():
            return
        if not self.told and not self.other.frames.closed and self.other.frames.between:
            # A frame to the service has to be masked as a client's is.
            mask = secrets.token_bytes(4) if self is self._tunnel.service else None
            self.transport.write(close_frame(code, why, mask=mask))
        self.told = True
        self.transport.close()


class Tunnel:
    """The two sides, and when they end. `ended` is done when both are gone."""

    def __init__(self, policy: WebSockets, client_lost: Lost) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = policy.idle
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.client = End(self, Frames(masked=True, message_bytes=policy.message_bytes), client_lost)
        self.service = End(self, Frames(masked=False, message_bytes=policy.message_bytes))
        self.client.other, self.service.other = self.service, self.client

    def begin(self, client: asyncio.Transport, early: bytes, service: asyncio.Transport, answer: bytes) -> None:
        """Join the two; `early` is what the client has sent already, `answer` what the service has."""
        self.client.transport, self.service.transport = client, service
        if self._idle:
            self._timer = self._loop.call_later(self._idle, self._check_idle)
        for end, data in ((self.client, early), (self.service, answer)):
            if data:
                self.came(end, data)

    def came(self, end: End, data: bytes) -> None:
        """Pass on what one side sent."""
        self._heard = self._loop.time()
        other = end.other
        try:
            end.frames.follow(data)
        except FrameError as error:
            self.stop(error.code, str(error))
            return
        if other.told or other.gone:
            if end.frames.closed:
                end.transport.close()  # the answer to our Close frame
            return
        other.transport.write(data)
        if self._draining:
            self.drain()

    def lost(self, end: End) -> None:
        """One side's connection is gone."""
        other = end.other
        if other.gone:
            if self._timer is not None:
                self._timer.cancel()
            if not self.ended.done():
                self.ended.set_result(None)
        elif end.frames.closed or end.told:
            other.transport.close()
        elif other is self.client:
            other.say(INTERNAL_ERROR, "The service closed the connection.")
        else:
            other.transport.close()  # without a Close frame, as the client did

    def stop(self, code: int, why: str) -> None:
        """End both sides now."""
        self.client.say(code, why)
        self.service.say(code, why)
        self._within(GOODBYE_SECONDS)

    def drain(self) -> None:
        """Tell both sides to go, each as soon as the frame that it is being sent is whole."""
        if not self._draining:
            self._draining = True
            self._within(GOODBYE_SECONDS)
        for end in (self.client, self.service):
            if not (end.told or end.gone or end.other.frames.closed) and end.other.frames.between:
                mask = secrets.token_bytes(4) if end is self.service else None
                end.transport.write(close_frame(GOING_AWAY, "The gateway restarts.", mask=mask))
                end.told = True

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        for end in (self.client, self.service):
            if not end.gone:
                end.transport.abort()

    def _check_idle(self) -> None:
        due = self._heard + self._idle
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check_idle)
        else:
            self.stop(NORMAL, f"Nothing was said for {self._idle:g} s.")
