"""A WebSocket through the gateway: bytes pass both ways as they come, their frames are looked at on the way.

Neither side is read faster than the other one takes it. A side that breaks the protocol or a limit, keeps silent or
takes nothing for too long or is gone ends the whole; as far as a frame can still be put in, the others are told with a
Close frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
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
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""After a minute of silence the system asks a peer whether it is there; one that has not answered a minute later is
gone.
"""


class End(asyncio.Protocol):
    """One side of a tunnel. `frames` are those that it sends."""

    def __init__(self, tunnel: Tunnel, frames: Frames, on_lost: Lost | None = None) -> None:
        self.tunnel = tunnel
        self._on_lost = on_lost
        self.frames = frames
        self.other: End
        self.transport: asyncio.Transport
        self.told = False
        """A Close frame was put in for it: nothing more may be sent to it."""
        self.gone = False
        self._unsent = 0  # bytes that waited for it when that was last looked at
        self._write_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self.tunnel.came(self, data)

    def pause_writing(self) -> None:
        if not self.other.gone:
            self.other.transport.pause_reading()  # from now on, nobody hears that the other one is gone
        self.watch()

    def resume_writing(self) -> None:
        if not self.other.gone:
            self.other.transport.resume_reading()
        if not self.transport.is_closing():
            self._stop_watching()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._stop_watching()
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost(exc)
        self.tunnel.lost(self)

    def tell(self, code: int, why: str) -> None:
        """Put in a Close frame, if what was sent so far is whole frames and none of them was one."""
        if self.gone or self.told or self.other.frames.closed or not self.other.frames.between:
            return
        # A frame to the service has to be masked as a client's is.
        mask = secrets.token_bytes(4) if self.other.frames.masked else None
        self.transport.write(close_frame(code, why, mask=mask))
        self.told = True

    def dismiss(self, code: int, why: str) -> None:
        """The same, and close without waiting for more."""
        if self.gone or self.transport.is_closing():
            return
        self.tell(code, why)
        self.told = True
        self.transport.close()

    def watch(self) -> None:
        """See that it takes something of what waits for it."""
        self._stop_watching()
        self._unsent = self.transport.get_write_buffer_size()
        loop = asyncio.get_running_loop()
        self._write_timer = loop.call_later(self.tunnel.write_seconds, self._check_reader)

    def _check_reader(self) -> None:
        if self.transport.get_write_buffer_size() != self._unsent:
            self.watch()
            return
        self.tunnel.stop(INTERNAL_ERROR, f"The other side took nothing for {self.tunnel.write_seconds:g} s.")
        self.transport.abort()

    def _stop_watching(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def part(self) -> None:
        """Let go of the others: nobody calls any more, and Python's collector need not look for cycles here."""
        del self.tunnel, self.other


class Tunnel:
    """The two sides, and when they end. `ended` is done when both are gone."""

    write_seconds = 60.0
    """A side that is slow to read takes at least a byte of what the other one sent within so long."""

    def __init__(self, policy: WebSockets, client_lost: Lost) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle = policy.idle
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._goodbye: tuple[int, str] | None = None
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
            _probe(end.transport)
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
        self._say_goodbye()

    def lost(self, end: End) -> None:
        """One side's connection is gone. The other one gets what is still on its way to it, if it takes it."""
        other = end.other
        if other.gone:
            if self._timer is not None:
                self._timer.cancel()
            end.part()
            other.part()
            if not self.ended.done():
                self.ended.set_result(None)
            return
        other.watch()
        if end.frames.closed or end.told:
            other.transport.close()
        elif other is self.client:
            other.dismiss(INTERNAL_ERROR, "The service closed the connection.")
        else:
            other.transport.close()  # without a Close frame, as the client did

    def stop(self, code: int, why: str) -> None:
        """End both sides now."""
        self._cut_soon(code, why)
        self.client.dismiss(code, why)
        self.service.dismiss(code, why)

    def close(self, code: int, why: str) -> None:
        """Tell both sides to go, each as soon as the frame that it is being sent is whole, and let them answer."""
        self._cut_soon(code, why)
        self._say_goodbye()

    def drain(self) -> None:
        self.close(GOING_AWAY, "The gateway restarts.")

    def _say_goodbye(self) -> None:
        if self._goodbye is not None:
            self.client.tell(*self._goodbye)
            self.service.tell(*self._goodbye)

    def _cut_soon(self, code: int, why: str) -> None:
        """What is said first counts, and from then on time runs."""
        if self._goodbye is not None or self.ended.done():
            return
        self._goodbye = code, why
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(GOODBYE_SECONDS, self._cut)

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


def _probe(transport: asyncio.Transport) -> None:
    """Have a peer missed that vanished without a word, though neither side has anything to say or a limit to keep."""
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it may be gone by now
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            if (option := getattr(socket, name, None)) is not None:  # not every system lets one choose
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
