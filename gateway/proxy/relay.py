"""One request and its answer between two connections, each piece passed on as it comes: by callbacks alone.

As with `forwarder.Delivery`, neither side is read faster than the other takes it, each has its time, and whoever lets
it pass is the one whose failure it is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from anumate.lib.problem import Problem
from anumate_integration_service.breaker import Outcome
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import Exchange
from gateway.proxy.forwarder import STALL_SECONDS, chunk, require_pace, stalled
from gateway.proxy.guard import Pass
from gateway.proxy.live import Binding
from gateway.proxy.pipelining import Flow
from gateway.proxy.recorder import CLIENT_GONE
from gateway.proxy.request import Header, Link
from gateway.proxy.upstream import ClosedEarly, Connection, TimedOut, UpstreamError

if TYPE_CHECKING:
    from gateway.proxy.direct import Direct, Steps

JOINED: Final = 16 * 1024
"""Bytes that are worth to be copied, to be written with the head in one piece."""


class Client(Protocol):
    """The server's side: the connection that the request came on."""

    link: Link
    transport: asyncio.Transport
    flow: Flow

    def begin(self, relay: Relay, left: int) -> None:
        """What still comes of the request's body, `left` bytes, is the relay's."""

    def answer(self, now: float, status: int, fields: list[Header], body: bytes, left: int) -> None:
        """The whole answer, of the gateway's own. `left` bytes are still to come of the request's body."""

    def go_on(self, steps: Steps, *, last: bool) -> None:
        """The relay is over, nothing is answered yet: a task does what is left to do."""

    def relayed(self, now: float, *, close: bool) -> None:
        """The answer is whole."""

    def cut(self) -> None:
        """It will not be whole."""


class Relay:
    __slots__ = (
        *("_asked", "_chunked", "_close", "_deadline", "_direct", "_failed", "_got", "_heard", "_held_up", "_left"),
        *("_client_slow", "_instance_slow", "_whole_body"),
        *("binding", "client", "connection", "endpoint", "head", "permit", "started", "x"),
    )

    def __init__(
        self,
        direct: Direct,
        binding: Binding,
        x: Exchange,
        head: bytes,
        endpoint: Endpoint,
        permit: Pass,
        connection: Connection,
        client: Client,
    ) -> None:
        self._direct = direct
        self.binding = binding
        self.x = x
        self.head = head
        self.endpoint = endpoint
        self.permit = permit
        self.connection = connection
        self.client = client
        self._chunked = self._close = self._failed = self._client_slow = self._instance_slow = False
        self._held_up = 0.0

    def begin(self, length: int, body: bytes) -> None:
        """Send the request, with as much of its body as there is."""
        x = self.x
        self._got = len(body)
        self._left = length - self._got
        if x.has_body:
            x.first_body = {"body": body, "more_body": self._left > 0}
        now = self.started = self._heard = self._asked = self._direct.now()
        self._deadline = now + x.timeout
        self.endpoint.started()
        if self._left:
            self.permit.may_wait(self.held_up)
        self.client.begin(self, self._left)
        self.connection.sink = self
        self.connection.begin(self.head + body if body else self.head)

    # What the client does

    def more(self, data: bytes) -> None:
        """A piece of the body."""
        now = self._direct.now()
        self._left -= len(data)
        if not self._instance_slow:
            self._held_up += now - self._asked
        self._asked = now
        self._deadline = now + self.x.timeout  # the instance cannot answer what it has not got
        self._got += len(data)
        try:
            require_pace(self._held_up, self._got, self.x.timeout, self.binding.route.limits.body_rate)
        except Problem as problem:
            self.connection.abort(problem)
        else:
            self.connection.write(data)

    def gone(self) -> None:
        """It hung up: nobody's failure."""
        self.connection.sink = None
        self.connection.transport.abort()
        self.endpoint.ended()
        self.permit.vote(Outcome.CANCELLED, self._direct.now())
        self.x.status = CLIENT_GONE
        self._direct.over(self)

    def client_slow(self) -> None:
        self._client_slow = True
        self.connection.transport.pause_reading()

    def client_ready(self) -> None:
        self._client_slow = False
        self._heard = self._direct.now()
        self.connection.transport.resume_reading()

    # What the instance does

    def slow(self) -> None:
        self._instance_slow = True
        if not self.client.transport.is_closing():
            self.client.flow.pause_reading()

    def ready(self) -> None:
        if self._instance_slow:
            self._instance_slow = False
            self._asked = self._direct.now()
            self._deadline = self._asked + self.x.timeout
            if not self.client.transport.is_closing():
                self.client.flow.resume_reading()

    def came(self) -> None:
        connection = self.connection
        if connection.error is not None:
            self._fail(connection.error)
        elif not connection.answered:
            return
        elif not self.x.started_answer:
            self._answer()
        else:
            data = connection.take_body()
            complete = connection.complete
            if not (data or complete):
                return  # framing alone does not count as an answer that goes on
            self._heard = self._direct.now()
            if self._chunked:
                data = chunk(data, last=complete)
            if data:
                self.client.transport.write(data)
            if complete:
                self._end(self._heard)

    def _answer(self) -> None:
        # Judged by its head: a stream may last for hours, and a trial's permit must not.
        connection, x, endpoint = self.connection, self.x, self.endpoint
        now = self._heard = self._direct.now()
        held_up = self.held_up(now)
        status = x.status = connection.status
        failed = self._failed = status >= 500
        endpoint.reached()
        endpoint.observed(now, now - self.started - held_up, failed)
        self.permit.vote(Outcome.FAILURE if failed else Outcome.SUCCESS, now, held_up=held_up)
        lines = self._direct.lines(self)
        x.started_answer = True
        # Rather closed than that the rest of a body is swallowed that nobody reads.
        unread = self._left > 0
        leaving = self._direct.leaving  # which the lines say
        self._close = unread or x.last or leaving
        if self._close and not leaving:
            lines += b"connection: close\r\n"
        body, complete = connection.take_body(), connection.complete
        if not connection.sized and status not in (204, 304):
            self._chunked = True
            lines += b"transfer-encoding: chunked\r\n"
            body = chunk(body, last=complete)
        head = b"%b%b\r\n" % (STATUS_LINE[status], lines)
        transport = self.client.transport
        if len(body) <= JOINED:
            transport.write(head + body if body else head)
        else:
            transport.write(head)
            transport.write(body)
        if complete:
            self._end(now)

    def _end(self, now: float) -> None:
        connection = self.connection
        connection.sink = None
        if self._left or self._instance_slow:  # it has not got all of this request, and may never take it
            connection.keep_alive = False
        if self._client_slow:
            connection.transport.resume_reading()
        connection.release()
        self.endpoint.ended()
        if self._instance_slow:
            self._let_read()
        if not self._failed:
            self.endpoint.served()
        self._direct.over(self)
        self.client.relayed(now, close=self._close)

    def _let_read(self) -> None:
        """Go on with the client where the instance was too slow to."""
        if self._instance_slow and not self.client.transport.is_closing():
            self.client.flow.resume_reading()

    def held_up(self, now: float) -> float:
        """Seconds that the client, not the instance, took."""
        return self._held_up + self._stall(now)

    def _stall(self, now: float) -> float:
        return now - self._asked if self._left and not self._instance_slow else 0.0

    # What goes wrong

    def check(self, now: float) -> None:
        """End it where one side has let its time pass."""
        connection, x = self.connection, self.x
        if not x.started_answer:
            if now >= self._deadline:
                stall = self._stall(now)
                late = TimedOut(f"It did not begin to answer within {x.timeout:g} s.")
                connection.abort(stalled(stall) if stall else late)
        elif not self._client_slow:
            idle = self.binding.route.timeouts.idle
            if now >= max(self._heard, self._asked) + idle:
                stall = self._stall(now)
                connection.abort(stalled(stall) if stall else TimedOut(f"Its answer stopped for {idle:g} s."))

    def _fail(self, error: Exception) -> None:
        connection, x = self.connection, self.x
        connection.sink = None
        connection.transport.abort()
        stall = self._stall(self._direct.now())
        under_our_hands = isinstance(error, ClosedEarly) and connection.reused and connection.silent
        if isinstance(error, ClosedEarly) and stall >= STALL_SECONDS and not x.started_answer:
            error = stalled(stall)
        self.endpoint.ended()
        self._let_read()
        if under_our_hands and x.replayable:
            self._direct.failed(self, None)  # that says nothing about the instance
            return
        if isinstance(error, UpstreamError):
            self._direct.missed(self, error)
        self._direct.failed(self, error)
