"""HTTP/1.1 connections to instances: httptools parses, asyncio carries, nothing is kept whole.

A `Connection` carries one exchange at a time. Its reader side has one waiter (first for the head, then for pieces of
the body) and its writer side another, so that both directions stream with back-pressure of their own. Every failure
becomes an `UpstreamError`, whose type answers: which code, and may the request be sent again?
"""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, Final, Protocol

import httptools

from anumate.lib import clock
from gateway.proxy.answer import Answer, read_answer
from gateway.proxy.policies import RetryOn
from gateway.proxy.request import LENGTH_DIGITS
from gateway.proxy.tls import Secure
from registry.live.addresses import resolve

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of status line and fields an answer may have."""
INTERIM_LIMIT: Final = 20
"""Answers 1xx before the answer; none of them is passed on."""
BUFFER_LIMIT: Final = 256 * 1024
"""Bytes of a body that wait for a slow client before the instance is told to wait."""
IDLE_LIMIT: Final = 4.0
"""Seconds a connection stays open unused: less than the 5 s after which common servers close it under our hands."""
IDLE_CONNECTIONS: Final = 128
"""Kept per instance."""

# What no field value may hold; the parser lets some of it pass, and the server would trip over it.
_ILLEGAL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class ClientGone(Exception):
    """The caller hung up: nobody's failure."""


class UpstreamError(Exception):
    """What an instance did wrong. `unsent` says that the request cannot have reached it; `reason` is what retry
    policies call it.
    """

    code = "upstream_closed"
    reason: RetryOn = "closed"
    unsent = False
    instance = ""


class ConnectFailed(UpstreamError):
    code = "upstream_connect_failed"
    reason = "connect"
    unsent = True


class Untrusted(UpstreamError):
    """It could not prove to be who it should be."""

    code = "upstream_untrusted"
    reason = "connect"
    unsent = True


class TimedOut(UpstreamError):
    code = "upstream_timeout"
    reason: RetryOn = "timeout"


class ConnectTimedOut(TimedOut):
    reason = "connect"
    unsent = True


class Refused(UpstreamError):
    """It answered with a status that the route's policy would rather try elsewhere."""

    code = "no_healthy_instance"
    reason = "status"

    def __init__(self, status: int, retry_after: float) -> None:
        super().__init__(f"It answered with status {status}.")
        self.retry_after = retry_after


class Malformed(UpstreamError):
    code = "upstream_malformed"


class ClosedEarly(UpstreamError):
    code = "upstream_closed"


class Sink(Protocol):
    """Who is told what happens on a connection, in place of a task that waits for it."""

    def came(self) -> None:
        """There is an answer, more of it, or an error."""

    def slow(self) -> None:
        """The instance does not take what is written as fast as it comes."""

    def ready(self) -> None:
        """It has caught up."""


class Connection(asyncio.Protocol):
    """One connection to an instance. Once it has `answered`, `answer` is the head, and `sized` tells whether the length
    of the body is known."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_buffered",
        "_can_write",
        "_head_bytes",
        "_informational",
        "_interim",
        "_left",
        "_parser",
        "_pool",
        "_reading_paused",
        "_switches",
        "_until_close",
        "_waiter",
        "answer",
        "answered",
        "complete",
        "error",
        "headers",
        "idle_since",
        "keep_alive",
        "leftover",
        "reused",
        "sink",
        "sized",
        "status",
        "transport",
    )

    transport: asyncio.Transport
    answer: Answer

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._left = 0  # bytes of a body of known length that are still to come
        self.sink: Sink | None = None
        self.reused = False
        self.idle_since = 0.0
        self.complete = True  # no exchange yet
        self.error: Exception | None = None

    # What the forwarder does

    def begin(self, request: bytes, *, bodiless_answer: bool = False, switches: bool = False) -> None:
        """Start an exchange by sending the request's head, with as much of its body as there is.

        With `switches` the instance may answer 101, after which the connection has to be handed over.
        """
        self.status = 0
        self._switches = switches
        self.leftover = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.answered = self.complete = self.keep_alive = False
        self._bodiless = bodiless_answer
        self._informational = self._until_close = False
        self._interim = 0
        self._body: list[bytes] = []
        self._buffered = self._head_bytes = self._left = 0
        self.transport.write(request)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the instance has taken enough of what was written."""
        if self._can_write is not None:
            await self._can_write

    async def head(self) -> None:
        """Wait for `status` and `headers`.

        Raises:
            UpstreamError: there will be none. ClientGone: `abort` said so.
        """
        while not self.answered:
            await self._wait()

    @property
    def silent(self) -> bool:
        """Whether not a byte of an answer has come."""
        return not self.answered and not self._head_bytes

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            UpstreamError: the body ends before its end. ClientGone: `abort` said so.
        """
        while not self._body and not self.complete:
            await self._wait()
        return self.take_body()

    def take_body(self) -> bytes:
        """What has arrived of the body since the last call."""
        body = self._body
        if not body:
            return b""
        piece = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._buffered = 0
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        return piece

    def release(self) -> None:
        """The exchange is over: keep the connection for the next one if it is fit for that."""
        if self.complete and self.keep_alive and self.error is None and not self.transport.is_closing():
            if self._bodiless:
                self._parser = httptools.HttpResponseParser(self)  # it still waits for a body that does not come
            self._pool.keep(self)
        else:
            self.transport.abort()

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Leave the connection to another protocol, after an answer 101; answers with what came after that."""
        self.transport.set_protocol(protocol)
        self.transport.resume_reading()
        del self._parser  # it leads back to the connection, which would wait for Python's collector
        return self.transport, self.leftover

    def abort(self, error: Exception) -> None:
        """End the exchange and the connection; who waits gets `error`."""
        if self.error is None:
            self.error = error
        self.transport.abort()
        self._wake()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.complete:
            if self.status == 101:
                self.leftover += data
            else:
                self.abort(Malformed("It sent bytes that nobody asked for."))
            return
        if not (self._took_rest(data) if self._left else self._took_whole_head(data)):
            self._parse(data)
        if self.error is not None:
            self.transport.abort()
        self._wake()

    def _took_whole_head(self, data: bytes) -> bool:
        """Read an ordinary answer from its first byte on, of whose body the parser need not see anything either."""
        if self._head_bytes or self._bodiless or self.answered:
            return False
        opening = read_answer(data)
        if opening is None:
            return False
        self.answer, size, self._left = opening
        self.status = self.answer.status
        self.answered = self.keep_alive = self.sized = True
        self.complete = not self._left
        if len(data) > size:
            self._took_rest(data[size:])
        return True

    def _took_rest(self, data: bytes) -> bool:
        if len(data) > self._left:  # what follows a whole answer is not our business; empty lines are nothing
            if data[self._left :].strip(b"\r\n"):
                self.keep_alive = False
            data = data[: self._left]
        if data:
            self.on_body(data)
            self._left -= len(data)
            self.complete = not self._left
        return True

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.status == 101:
                self.leftover = data[upgrade.args[0] :]
                self.transport.pause_reading()
            else:
                self._not_http(upgrade)
        except httptools.HttpParserError as error:
            self._not_http(error)
        if not self.answered and self.error is None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self.error = Malformed(f"The head of its answer is over {HEAD_LIMIT} bytes.")

    def _not_http(self, error: Exception) -> None:
        self.keep_alive = False
        # When the answer is whole already, what follows it is not our business.
        if not self.complete and self.error is None:
            self.error = Malformed(f"Its answer is not HTTP/1.1: {error}.")

    def connection_lost(self, exc: Exception | None) -> None:
        if self.complete:
            self._pool.forget(self)
        elif self._until_close and exc is None and self.error is None:
            self.complete = True
        elif self.error is None:
            self.error = ClosedEarly("It closed the connection before its answer was complete.")
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        if self.sink is not None:
            self.sink.slow()
        elif self._can_write is None:
            self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self.sink is not None:
            self.sink.ready()
        if self._can_write is not None:
            if not self._can_write.done():
                self._can_write.set_result(None)
            self._can_write = None

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.answered:  # later ones are trailers, which ASGI cannot carry
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < 100 or version not in ("1.1", "1.0"):
            self.error = Malformed("Its status line is not one of HTTP/1.1 or HTTP/1.0.")
            return
        if status < 200:
            self._informational = True
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                self.error = Malformed(f"It sent more than {INTERIM_LIMIT} interim answers.")
            if status == 101:
                self._switch()
            return
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        # A coding in HTTP/1.0 makes the framing faulty (RFC 9112 §6.1).
        lengths = [value for name, value in self.headers if name == b"content-length"]
        faulty = codings not in ([], [b"chunked"]) or (codings and version == "1.0")
        if status > 599 or faulty or any(len(each) > LENGTH_DIGITS for each in lengths) or self._has_illegal_value():
            self.error = Malformed("Its status, a field value, its length or its transfer coding is not acceptable.")
            return
        self.status = status
        self.answer = Answer(status, self.headers, version)
        self.answered = True
        self.keep_alive = self._parser.should_keep_alive()
        self.sized = bool(lengths) and not codings
        if self._bodiless or status in (204, 304):
            self.complete = True
        else:
            self._until_close = not codings and not self.sized

    def _switch(self) -> None:
        if not self._switches or not self._parser.should_upgrade():
            self.error = Malformed("It switched to a protocol that nobody asked for.")
        elif self._has_illegal_value():
            self.error = Malformed("A field value of its answer is not acceptable.")
        else:
            self._informational = False
            self.status = 101
            self.answer = Answer(101, self.headers)
            self.answered = self.complete = True

    def _has_illegal_value(self) -> bool:
        return _ILLEGAL(b"".join([value for _, value in self.headers])) is not None

    def on_body(self, body: bytes) -> None:
        if self.complete:
            self.keep_alive = False
            return
        self._body.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_LIMIT and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def on_message_begin(self) -> None:
        if self.complete:
            self.keep_alive = False  # a second answer to one request

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            self.headers = []
        else:
            self.complete = self.answered

    def _wake(self) -> None:
        if self.sink is not None:
            self.sink.came()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self.error is not None:
            raise self.error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self.error is not None:
            raise self.error


class Pool:
    """The connections to one address. The one used last is used next, so that spares grow old and are closed."""

    __slots__ = ("_closed", "_idle", "host", "port", "secure")

    def __init__(self, host: str, port: int, secure: Secure | None = None) -> None:
        self.host = host
        self.port = port
        self.secure = secure
        self._idle: list[Connection] = []
        self._closed = False

    @property
    def target(self) -> tuple[str, int, Secure | None]:
        """Where it leads, and how."""
        return self.host, self.port, self.secure

    def take(self) -> Connection | None:
        """An idle connection, if there is one that is still open."""
        oldest = clock.monotonic() - IDLE_LIMIT  # asking the loop for its time took 1 us more
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since < oldest:
                connection.transport.abort()  # reaping comes too seldom to rely on
            elif not connection.transport.is_closing():
                connection.reused = True
                return connection
        return None

    async def connect(self, seconds: float) -> Connection:
        """A new connection.

        Raises:
            ConnectFailed, ConnectTimedOut, Untrusted: there is none within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._connect()
        except TimeoutError:
            raise ConnectTimedOut(f"It did not accept a connection within {seconds:.3g} s.") from None
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(f"Its certificate is not to be trusted: {error.verify_message.rstrip('.')}.") from None
        except ssl.SSLError as error:
            raise ConnectFailed(f"TLS could not be agreed on with it ({error.reason or error}).") from None
        except OSError as error:
            raise ConnectFailed(f"It does not accept connections ({error.strerror or error}).") from None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        secure = self.secure
        encryption: dict[str, Any] = (
            {"ssl": secure.context, "server_hostname": secure.server_name or self.host} if secure else {}
        )
        for address in await resolve(self.host):  # what a name means now may be an address nobody may reach
            try:
                _, connection = await loop.create_connection(lambda: Connection(self), address, self.port, **encryption)
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure or OSError("it has no address")

    def keep(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_CONNECTIONS:
            connection.transport.abort()
            return
        connection.idle_since = clock.monotonic()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def reap(self, now: float) -> None:
        """Close what was not used for long."""
        while self._idle and self._idle[0].idle_since < now - IDLE_LIMIT:
            self._idle.pop(0).transport.abort()

    def close(self) -> None:
        """Close what is idle now; a connection in use is closed when its answer is complete."""
        self._closed = True
        while self._idle:
            self._idle.pop().transport.abort()
