"""The gateway's server: what is common goes to `direct` from here, all else the long way, as an ASGI server has it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.proxy.connections import Connections
from gateway.proxy.direct import Direct, Steps
from gateway.proxy.forwarder import Receive, Send
from gateway.proxy.pipelining import seeming_end
from gateway.proxy.relay import Relay
from gateway.proxy.request import Header, Link, encoded
from gateway.proxy.server import LAST_SECONDS
from gateway.proxy.upgrading import UpgradingServer

WRITE_LIMIT: Final = 256 * 1024
"""Bytes that wait for a slow client before the instance is told to wait."""


class GatewayServer(UpgradingServer):
    """One connection of a client."""

    link: Link

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._direct: Direct | None = getattr(self.app, "direct", None)
        self._others: Connections | None = getattr(self.app, "connections", None)
        self._relay: Relay | None = None
        self._left = 0  # bytes of a body that are still to come, past the parser
        self._steps: Steps | None = None
        self._used = 0.0

    # What asyncio calls

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_LIMIT)
        peer, server = self.client, self.server
        self.link = Link(peer[0] if peer else "", self.scheme or "http", (server and server[1]) or 0)
        if self._others is not None and not self._others.enter(self):
            self._turn_away(self._others)

    def _turn_away(self, others: Connections) -> None:
        """For want of room: nothing it sends is read."""
        self._say_last(others.refusal(self.loop.time()))
        if others.may_linger(self):
            self._close_gently()
        else:
            self._closing = True
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._left or self._relay is not None or self._next:
            self._take_body(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self._direct is None or not self._is_between_requests():
            super()._take(data)
            return
        if self.flow.write_paused:
            self.flow.set_aside(data)  # or who reads nothing would have us keep all that is answered
            return
        taken = self._direct.take(data, self)
        if taken is True:
            return
        if taken is False and seeming_end(data) < len(data):
            self.flow.put_back(data)
            self._take_next()
        else:
            self._steps = taken or None
            super()._take(data)

    def _is_between_requests(self) -> bool:
        """Whether the next bytes begin a request, and none is before it."""
        cycle = self.cycle
        return not (
            (self._unread or self._in_body or self._closing or self._leaving or self._upgrading)
            or (cycle is not None and not cycle.response_complete)
        )

    def _take_body(self, data: bytes) -> None:
        if self._closing:
            return
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        if body and self._relay is not None:
            self._relay.more(body)
        if not rest:
            return
        if self._next or self._is_serving():
            self.flow.set_aside(rest)
        else:
            self._take(rest)

    def _is_amid_request(self) -> bool:
        return self._left > 0 or super()._is_amid_request()

    def connection_lost(self, exc: Exception | None) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.gone()
        if self._others is not None:
            self._others.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._relay is not None:
            self._relay.client_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._relay is not None:
            self._relay.client_ready()

    def timeout_keep_alive_handler(self) -> None:
        # One timer for many requests, which looks again when its time has come: 1 us less for each.
        if self._relay is not None or self._next:
            self._close_after(self.timeout_keep_alive)
        elif self._direct is not None and not (self._closing or self._leaving):
            left = self._used + self.timeout_keep_alive - self._direct.now()
            if left > 0:
                self._close_after(left)
            else:
                super().timeout_keep_alive_handler()
        else:
            super().timeout_keep_alive_handler()

    # What direct requests call

    def begin(self, relay: Relay, left: int) -> None:
        self._relay = relay
        self._left = left

    def answer(self, now: float, status: int, fields: list[Header], body: bytes, left: int) -> None:
        self._left = left
        close = any(name == b"connection" and value.lower() == b"close" for name, value in fields)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], encoded(fields), body))
        self._answered(now, close=close)

    def relayed(self, now: float, *, close: bool) -> None:
        self._relay = None
        self._answered(now, close=close)

    def cut(self) -> None:
        self._relay = None
        self._closing = True
        self.transport.close()

    def go_on(self, steps: Steps, *, last: bool) -> None:
        self._relay = None
        self._unset_keepalive_if_required()
        self._steps = steps
        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": "GET"},  # type: ignore[typeddict-item]  # all that it looks at
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=not (last or self._leaving),
            on_response=self.on_response_complete,
        )
        self.cycle.more_body = False
        self._start_asgi_task(self.cycle, self.app)

    def _answered(self, now: float, *, close: bool) -> None:
        self._used = now
        self.server_state.total_requests += 1
        if close and (self._left or self._next):
            self._close_gently()
        elif close:
            self._closing = True
            self.transport.close()
        else:
            if self._leaving:
                self._close_after(LAST_SECONDS)
            if self._next:
                self._go_on_soon()

    def _close_after(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # What the rest of the server calls

    def _is_serving(self) -> bool:
        return self._relay is not None or super()._is_serving()

    def _let_it_be_last(self) -> None:
        if self._relay is None:  # a relay asks the gateway
            super()._let_it_be_last()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            run = steps

            async def app(scope: Any, receive: Receive, send: Send) -> None:
                await run(receive, send)

        super()._start_asgi_task(cycle, app)
