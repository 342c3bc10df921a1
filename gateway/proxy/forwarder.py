"""Sends a request to an instance and its answer to the client, both streamed, neither ever whole in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from anumate.lib.clock import Clock
from anumate.lib.problem import Problem
from anumate_integration_service.breaker import Outcome
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import Exchange
from gateway.proxy.guard import Pass
from gateway.proxy.heads import answer_head
from gateway.proxy.live import Binding
from gateway.proxy.request import Header
from gateway.proxy.upstream import ClientGone, ClosedEarly, Connection, Malformed, Refused, TimedOut, UpstreamError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_AFTER: Final = 0.05
"""Seconds after which a request is worth a task that hears the client hang up; most have been answered by then."""
STALL_SECONDS: Final = 1.0
"""Seconds without a piece of an upload after which an instance that hangs up gave up on the client, not on us."""

GRACE_SECONDS: Final = 5.0
"""For so long at least, nobody minds at what pace an upload comes."""


def stalled(seconds: float) -> Problem:
    """The client's upload stopped in the middle: its failure, and the rest must not be read as the next request."""
    return Problem("request_timeout", f"No byte of the body came for {seconds:.3g} s.", headers={"Connection": "close"})


def chunk(data: bytes, *, last: bool) -> bytes:
    """A piece of a body in chunked coding."""
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if last else framed


def require_pace(held_up: float, size: int, timeout: float, rate: int) -> None:
    """A client that dribbles its upload must not hold an instance for ever: besides `timeout`, or five seconds, it may
    be waited for as long as `size` bytes take at `rate` bytes a second; 0 is any pace.

    Raises:
        Problem: request_timeout.
    """
    if rate and held_up > max(timeout, GRACE_SECONDS) + size / rate:
        detail = f"The body comes at less than {rate} bytes a second."
        raise Problem("request_timeout", detail, headers={"Connection": "close"})


class Forwarder:
    def __init__(
        self, added: Callable[[Exchange], list[Header]], monotonic: Clock, tunnel: Callable[..., Awaitable[None]]
    ) -> None:
        self._added = added
        self._now = monotonic
        self._tunnel = tunnel

    async def forward(
        self,
        binding: Binding,
        x: Exchange,
        head: bytes,
        endpoint: Endpoint,
        permit: Pass,
        receive: Receive,
        send: Send,
    ) -> None:
        """One try on one instance: the request there, the answer back, what it was like to balancing.

        An answer votes. A failure does not: whether it was the request's last try is for the caller to say.

        Raises:
            UpstreamError: the instance failed; the client has an answer only if `x.started_answer`. ClientGone.
        """
        started = self._now()
        endpoint.started()
        try:
            delivery = await self.deliver(binding, x, head, endpoint, receive)
            try:
                if delivery.connection.status == 101:
                    self._switched(x, delivery, endpoint, permit, started)
                    await self._tunnel(binding, x, delivery, self._added(x))
                else:
                    await self.answer(binding, x, delivery, endpoint, permit, started, send)
            finally:
                delivery.end()
        except UpstreamError as error:
            self.failed(endpoint, permit, started, error)
            raise
        finally:
            endpoint.ended()

    def _switched(self, x: Exchange, delivery: Delivery, endpoint: Endpoint, permit: Pass, started: float) -> None:
        """The instance took the WebSocket, and with that the request is over."""
        if x.handshake is None:
            raise Malformed("It switched to a protocol that nobody asked for.")
        if why := x.handshake.check(delivery.connection.answer.fields):
            raise Malformed(f"Its answer to the WebSocket's handshake is wrong: {why}.")
        now = x.ended = self._now()
        x.status = 101
        endpoint.reached()
        endpoint.observed(now, now - started, failed=False)
        endpoint.served()
        permit.vote(Outcome.SUCCESS, now)
        x.started_answer = True

    def failed(self, endpoint: Endpoint, permit: Pass, started: float, error: UpstreamError) -> None:
        """Have balancing know of it."""
        now = self._now()
        if permit.voted:
            endpoint.broke_off(now)
        else:
            endpoint.observed(now, now - started, failed=True)
        if error.unsent:
            endpoint.rest(now)

    async def deliver(
        self, binding: Binding, x: Exchange, head: bytes, endpoint: Endpoint, receive: Receive
    ) -> Delivery:
        """Send the request; answers once the head of an answer is there.

        Raises:
            UpstreamError, ClientGone, Problem: there will be none.
        """
        if x.nameless:
            head = endpoint.named(head)
        connection = endpoint.pool.take()
        if connection is not None:
            try:
                return await Delivery(binding, x, connection, receive).start(head)
            except ClosedEarly:
                # It was closed under our hands: that says nothing about the instance.
                if not (connection.silent and x.replayable):
                    raise
                if x.kept is not None:
                    x.kept.rewind()
        connection = await endpoint.pool.connect(min(binding.route.timeouts.connect, x.timeout))
        return await Delivery(binding, x, connection, receive).start(head)

    async def answer(
        self,
        binding: Binding,
        x: Exchange,
        delivery: Delivery,
        endpoint: Endpoint,
        permit: Pass,
        started: float,
        send: Send,
    ) -> None:
        """Pass the answer on, and have balancing and the breaker know what it was like.

        Raises:
            UpstreamError: it broke off, or was refused. ClientGone.
        """
        # Judged by its head: a stream may last for hours, and a trial's permit must not.
        connection = delivery.connection
        status = connection.status
        if status in x.unwanted and x.has_its_body:
            _refuse(connection, binding)
        x.status = status
        failed = status >= 500
        headers = answer_head(connection.answer, self._added(x), binding.answer_edits)
        if not delivery.sent:
            headers.append((b"connection", b"close"))  # rather than swallow the rest of a body that nobody reads
        now = self._now()
        endpoint.reached()
        endpoint.observed(now, now - started - delivery.held_up, failed)
        permit.vote(Outcome.FAILURE if failed else Outcome.SUCCESS, now, held_up=delivery.held_up)
        x.started_answer = True
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if connection.complete:
            await send({"type": "http.response.body", "body": connection.take_body()})
        else:
            delivery.stream()
            more = True
            while more:
                piece = await delivery.piece()
                more = not connection.complete
                await send({"type": "http.response.body", "body": piece, "more_body": more})
        if not failed:
            endpoint.served()


def _refuse(connection: Connection, binding: Binding) -> None:
    """Have the request tried elsewhere, unless the instance asks for a longer pause than the policy allows.

    Raises:
        Refused.
    """
    wanted = next((value for name, value in connection.answer.fields if name == b"retry-after"), b"0")
    pause = float(wanted) if wanted.isdigit() and len(wanted) < 10 else float("inf")  # a date is far away
    if pause <= binding.route.retry.backoff_limit:
        raise Refused(connection.status, pause)


class Delivery:
    """One exchange on one connection: what runs beside it (the body on its way, the clock, the ear for a hang-up)."""

    __slots__ = (
        *("_asked", "_companion", "_deadline", "_expecting", "_got", "_held_up", "_idle", "_left", "_loop"),
        *("_rate", "_receive", "_timeout", "_timer", "_x", "connection", "sent"),
    )

    def __init__(self, binding: Binding, x: Exchange, connection: Connection, receive: Receive) -> None:
        self._x = x
        self._rate = binding.route.limits.body_rate
        self._got = 0
        self.connection = connection
        self._receive = receive
        self._idle = binding.route.timeouts.idle
        self._timeout = x.timeout
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + x.timeout
        self._companion: asyncio.Task[None] | None = None
        self._asked = 0.0  # when the client was asked for the next piece, which has not come
        self._held_up = 0.0
        self._expecting = 0.0  # since when a piece of the answer's body is waited for
        self._left = False
        self.sent = True

    @property
    def held_up(self) -> float:
        """Seconds that the client, not the instance, took: those it was waited for."""
        return self._held_up + self._stall

    @property
    def _stall(self) -> float:
        return self._loop.time() - self._asked if self._asked else 0.0

    async def start(self, head: bytes) -> Delivery:
        """Send the request and wait for the answer's head.

        Raises:
            UpstreamError, ClientGone: there will be none; the connection is closed.
        """
        connection, first = self.connection, self._x.first_body
        bodiless = self._x.method == "HEAD"
        if first is None:
            connection.begin(head, bodiless_answer=bodiless, switches=self._x.handshake is not None)
        else:
            more = first.get("more_body", False)
            connection.begin(head + self._framed(first.get("body", b""), more), bodiless_answer=bodiless)
            if more:
                self.sent = False
                self._x.permit.may_wait(lambda _: self.held_up)  # by the loop's clock
                self._companion = self._loop.create_task(self._send_body())
        self._timer = self._loop.call_later(min(WATCH_AFTER, self._timeout), self._tick)
        try:
            await connection.head()
        except BaseException as error:
            stall = self._stall
            connection.keep_alive = False
            self.end()
            if isinstance(error, ClosedEarly) and stall >= STALL_SECONDS:
                raise stalled(stall) from None
            raise
        self._timer.cancel()
        return self

    def watch(self) -> None:
        """From now on, a client that hangs up ends the exchange."""
        if self._companion is None:
            self._companion = self._loop.create_task(self._hear_hang_up())

    def stream(self) -> None:
        """From now on, the answer comes in pieces, and either side may be the one that keeps silent."""
        self.watch()
        self._check_idle()

    async def piece(self) -> bytes:
        """The next piece of the answer's body.

        Raises:
            UpstreamError: there is none, or none in time. Only the time in here counts: a client may read slowly.
            Problem: none came because the client stopped sending what it is about. ClientGone.
        """
        self._expecting = self._loop.time()
        try:
            return await self.connection.read()
        finally:
            self._expecting = 0.0

    def _check_idle(self) -> None:
        now, limit = self._loop.time(), self._idle
        # An instance may have to wait for the client too.
        since = max(self._expecting, self._deadline - self._timeout) if self._expecting else now
        if now < since + limit:
            self._timer = self._loop.call_at(since + limit, self._check_idle)
        elif self._asked:
            self.connection.abort(stalled(self._stall))
        else:
            self.connection.abort(TimedOut(f"Its answer stopped for {limit:g} s."))

    def leave(self) -> None:
        """The connection is handed over: what happens to it is no longer the exchange's business."""
        self._left = True
        if self._companion is not None:
            self._companion.cancel()  # or it would cut off what the instance is still to get of a client that has gone

    def end(self) -> None:
        self._timer.cancel()
        if self._companion is not None:
            self._companion.cancel()
        if self._left:
            return
        if self.sent:
            self.connection.release()
        else:
            self.connection.transport.abort()

    def _tick(self) -> None:
        if self._loop.time() >= self._deadline:
            if self._asked:
                self.connection.abort(stalled(self._stall))
                return
            self.connection.abort(TimedOut(f"It did not begin to answer within {self._timeout:g} s."))
            return
        self.watch()
        self._timer = self._loop.call_at(self._deadline, self._tick)

    async def _hear_hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.connection.abort(ClientGone())

    async def _send_body(self) -> None:
        """The rest of the body, no faster than the instance takes it; then an ear for a hang-up."""
        connection, more = self.connection, True
        while more:
            await connection.drain()
            self._asked = self._loop.time()
            self._deadline = self._asked + self._timeout  # each waits for the other only so long
            try:
                message = await self._receive()
                self._held_up += self._stall
                self._got += len(message.get("body", b""))
                require_pace(self._held_up, self._got, self._timeout, self._rate)
            except Problem as problem:  # it is longer than the route takes, or too slow
                connection.abort(problem)
                return
            self._asked = 0.0
            if message["type"] == "http.disconnect":
                connection.abort(ClientGone())
                return
            more = message.get("more_body", False)
            connection.write(self._framed(message.get("body", b""), more))
            self._deadline = self._loop.time() + self._timeout  # the instance cannot answer what it has not got
        self.sent = True
        await self._hear_hang_up()

    def _framed(self, data: bytes, more: bool) -> bytes:
        if self._x.content_length is not None:
            return data
        return chunk(data, last=not more)
