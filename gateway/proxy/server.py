"""The gateway's side of a client's connection: uvicorn's protocol with limits on what it reads and how long it waits.

What cannot become a request is refused here, as a problem like any other, before the application hears of it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from collections.abc import Callable
from random import getrandbits
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from anumate.lib.problem import Problem
from gateway.proxy.errors import answer_of
from gateway.proxy.fields import VIA
from gateway.proxy.forwarder import Message, Receive, Send
from gateway.proxy.options import AS_A_WHOLE
from gateway.proxy.pipelining import BEFORE_END, END, Chunks, Flow, seeming_end
from gateway.proxy.request import USUAL, Header, HeadLimits, encoded, host_name

VERSIONS: Final = ("1.1", "1.0")
LINGER_SECONDS: Final = 1.0
"""For so long, what a refused client still sends is thrown away: closing on it at once could lose it the answer."""
LAST_SECONDS: Final = 1.5
"""While the server drains, an idle connection waits so long for a request that was on its way when the drain began."""

_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?][^#]*)?)", re.IGNORECASE).fullmatch

FRAMING: Final = (b"content-length", b"transfer-encoding")
"""Fields that tell of a body."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)

logger = logging.getLogger("anumate.gateway.server")
logger.setLevel(logging.INFO)  # uvicorn compares this one level, and traces every connection below 5


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the gateway has not said it already: who cuts an answer off tells why."""
    return record.msg != "ASGI callable returned without completing response."


logger.addFilter(_is_news)


class Server(HttpToolsProtocol):
    """One connection of a client. Its requests are read and answered one after another, as they came."""

    flow: Flow
    write_seconds = 60.0
    """A client that is slow to read takes at least a byte of its answer within so long."""
    log = logger
    signature: tuple[Header, ...] = ((b"via", VIA),)
    """What an answer of ours carries besides."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.log
        self._limits: HeadLimits = getattr(self.app, "head_limits", USUAL)
        self._unread = 0  # bytes since the parser last gave something out; above 0 from a head's first byte to its last
        self._field_bytes = 0
        self._in_body = False
        self._body_left = 0  # bytes of a body whose length is known, for the parser
        self._chunks: Chunks | None = None
        self._last_bytes = b""  # that the parser got, where a line end may be cut in two
        self._head_timer: asyncio.TimerHandle | None = None
        self._defect: Problem | None = None
        self._closing = False
        self._leaving = False
        self._next = bytearray()  # what came too early: the flow's
        self._going_on = False
        self._unsent = 0  # bytes of answers that waited for the client when that was last looked at
        self._write_timer: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._next = self.flow.waiting
        # Who connects and says nothing is as idle as who has been served.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        if getattr(self.server_state, "draining", False):
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()
        self._go_on_soon()

    def data_received(self, data: bytes) -> None:
        if not self._next:
            self._take(data)
        elif not self._closing:
            self.flow.set_aside(data)

    def _take(self, data: bytes) -> None:
        """What comes next: of the request at hand, or a next one if it is its time."""
        if self._closing:
            return
        if not self._is_amid_request() and (self._is_serving() or self.flow.write_paused):
            self.flow.set_aside(data)
            return
        self._feed(data)
        if self._unread and not self._in_body:
            if self._unread > self._limits.unread:
                self._refuse(self._too_large())
            elif self._head_timer is None and not self._closing:
                self._head_timer = self.loop.call_later(self._limits.seconds, self._head_took_too_long)
        elif self._head_timer is not None:
            self._stop_head_timer()
        elif self._unread > self._limits.unread:
            self._refuse(Problem("malformed_request", "What frames the body is larger than a body's frame can be."))

    def _is_amid_request(self) -> bool:
        return bool(self._unread or self._in_body)

    def _feed(self, data: bytes) -> None:
        """Have the parser read, up to the end of a request at most: it does not tell where that is, and stops at none.
        So it gets pieces, cut wherever one can be.
        """
        self._unset_keepalive_if_required()
        at = 0
        while at < len(data) and not self._closing:
            end = self._cut(data, at)
            piece = data[at:end]
            self._last_bytes = (self._last_bytes + piece[-BEFORE_END:])[-BEFORE_END:]
            self._unread += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                self.on_upgrade(data[at + upgrade.args[0] :])
                return
            except httptools.HttpParserError:
                self.send_400_response("")
                return
            at = end
            if not self._is_amid_request():
                break
        if at < len(data) and not self._closing:
            self.flow.put_back(data[at:])
            if not self._is_serving():  # answered before it was whole
                self._go_on_soon()

    def _cut(self, data: bytes, at: int) -> int:
        """Where, after `at`, the request can be at its end."""
        if self._body_left:
            return min(at + self._body_left, len(data))
        if self._in_body and self._chunks is not None:
            return self._chunks.end(data, at)
        before = self._last_bytes
        if (found := (before + data[at : at + BEFORE_END]).find(END)) >= 0:
            return at + found + len(END) - len(before)
        found = data.find(END, at)
        return found + len(END) if found >= 0 else len(data)

    def _go_on_soon(self) -> None:
        """Other connections have their turn first."""
        if self._next and not self._going_on:
            self._going_on = True
            self.loop.call_soon(self._take_next)

    def _take_next(self) -> None:
        """Go on with the first request that was set aside, if its time has come."""
        self._going_on = False
        if not self._next or self.flow.write_paused or self._closing or self._is_serving():
            return
        if self.transport.is_closing():
            return
        self._take(self.flow.take(seeming_end(self._next)))
        if self._next and self._is_amid_request():  # it was longer than it seemed
            self.data_received(self.flow.take(len(self._next)))

    def on_upgrade(self, rest: bytes) -> None:
        """A request that asks for another protocol has ended; `rest` came after it."""
        if self._should_upgrade():
            self.handle_websocket_upgrade()

    # What the server calls

    def shutdown(self) -> None:
        """Answer what is under way or on its way, each answer that begins from now on with `Connection: close`."""
        self._leaving = True
        self.timeout_keep_alive = LAST_SECONDS  # type: ignore[assignment]  # call_later takes fractions
        if self._is_serving():
            self._let_it_be_last()
        elif not self._unread and not self._closing:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LAST_SECONDS, self.timeout_keep_alive_handler)

    def _let_it_be_last(self) -> None:
        """Have the answer that is under way say so, if it has not begun."""
        if not self.cycle.response_started:
            self.cycle.keep_alive = False

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_body = False
        self._body_left = 0
        self._field_bytes = 0
        self._unread = self._unread or 1

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.url:
            self._reject(Problem("uri_too_long", f"The address is over {self._limits.url} bytes long."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return  # a trailer, which must not pass for one of the head's fields
        self._field_bytes += len(name) + len(value) + 4  # colon, space and line end
        if self._field_bytes > self._limits.field_bytes or len(self.headers) >= self._limits.fields:
            self._reject(self._too_large())
        name, value = name.lower(), value.strip(b" \t")  # RFC 9112 §5.1; the parser leaves what is behind
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._in_body = True
        version = self.parser.get_http_version()
        if version not in VERSIONS:
            self._reject(Problem("malformed_request", "The gateway speaks HTTP/1.1 and HTTP/1.0 on this connection."))
        if b"#" in self.url:  # uvicorn would drop what is behind
            self._reject(Problem("malformed_request", "The request target has a fragment."))
        if self.url[:1] != b"/":
            self._take_target(version)
        if version == "1.0":
            self.expect_100_continue = False  # its client does not know that answer (RFC 9110 §10.1.1)
        # The parser has seen that it is a number of 64 bits, whatever zeros are before it.
        self._body_left = next((int(value[-20:]) for name, value in self.headers if name == b"content-length"), 0)
        self._chunks = Chunks() if any(name == b"transfer-encoding" for name, _ in self.headers) else None
        super().on_headers_complete()
        if self._leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def _take_target(self, version: str) -> None:
        """One that is no path: `*`, or an address, whose host counts, and not the Host field's (RFC 9112 §3.2.2). That
        has to be a good one all the same, and only HTTP/1.0 may leave it out. Two fields stay two, to be refused.
        """
        asks_for_options = self.parser.get_method() == b"OPTIONS"
        if asks_for_options and self.url == b"*":
            self.url = AS_A_WHOLE.encode()
            return
        found = _ABSOLUTE(self.url)
        if found is None:
            self._reject(Problem("malformed_request", "The request target is neither a path nor an address of HTTP."))
            return
        hosts = [number for number, (name, _) in enumerate(self.headers) if name == b"host"]
        if len(hosts) == 1:
            try:
                host_name(self.headers[hosts[0]][1])
            except Problem as problem:
                self._reject(problem)
            self.headers[hosts[0]] = b"host", found[1]
        elif not hosts and version == "1.0":
            self.headers.append((b"host", found[1]))
        if asks_for_options and not found[2]:  # §3.2.4
            self.url = AS_A_WHOLE.encode()
        else:
            self.url = found[2] if found[2][:1] == b"/" else b"/" + found[2]

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if self._body_left:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._in_body = False
        self._last_bytes = b""
        super().on_message_complete()

    # What cannot be read

    def _reject(self, defect: Problem) -> None:
        """Make the parser stop where it is; it reports that as an error, so `send_400_response` is next."""
        self._defect = defect
        raise defect

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._defect or Problem("malformed_request", "The request is not HTTP/1.1 as it is written."))

    def _head_took_too_long(self) -> None:
        self._head_timer = None
        detail = f"The head of the request took over {self._limits.seconds:g} s to come."
        self._refuse(Problem("request_timeout", detail))

    def _too_large(self) -> Problem:
        limits = self._limits
        detail = f"The header fields are over {limits.field_bytes} bytes, or more than {limits.fields}."
        return Problem("headers_too_large", detail)

    # Who does not read

    def _watch_reader(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.write_seconds, self._check_reader)

    def _check_reader(self) -> None:
        if self.transport.get_protocol() is not self:
            return  # a WebSocket, which has its own time
        if self.transport.get_write_buffer_size() != self._unsent:
            self._watch_reader()
            return
        client = self.client[0] if self.client else "somebody"
        self.log.info("cut off %s, who read nothing for %g s", client, self.write_seconds)
        self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.more_body and any(name in FRAMING for name, _ in cycle.scope["headers"]):
            app = _without_haste(app, cycle, self._close_gently)
        if cycle.scope.get("http_version") == "1.0":
            app = _without_chunks(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Say why and close; what came before on this connection has been answered."""
        if self._closing or self.transport.is_closing():
            return
        if self._is_serving():
            self._break_off(problem)
        else:
            self._say_goodbye(problem)

    def _break_off(self, problem: Problem) -> None:
        """End the request whose body is at fault: with the problem, if its answer has not begun."""
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self._closing = True
            self.transport.close()
        else:
            self._say_goodbye(problem)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._go_on_soon()

    def _say_goodbye(self, problem: Problem) -> None:
        request_id = self._say_last(problem)
        client = self.client[0] if self.client else "somebody"
        self.log.info("refused %s: %s %s", client, problem.code, request_id.decode())
        self._close_gently()

    def _say_last(self, problem: Problem) -> bytes:
        """Answers with the id under which the client can ask about it."""
        request_id = b"%032x" % (getrandbits(128) | 1)
        headers, body = answer_of(problem, request_id)
        headers += [(b"x-request-id", request_id), *self.signature, (b"connection", b"close")]
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[problem.status], encoded(headers), body))
        return request_id

    def _close_gently(self) -> None:
        """Close once the client has had time to read: what it still sends would cost it the answer (RFC 9112 §9.6)."""
        self._closing = True
        self._next.clear()
        self.flow.resume_reading()
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.timeout_keep_alive_task = self.loop.call_later(LINGER_SECONDS, self.timeout_keep_alive_handler)
        else:
            self.transport.close()


def _without_haste(app: Any, cycle: RequestResponseCycle, close: Callable[[], None]) -> Any:
    """For a request with a body: its last answer may be whole before it, and uvicorn would close at once then."""

    async def unhurried(message: Message, send: Send) -> None:
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        hurried = is_last and cycle.more_body and not cycle.keep_alive
        if hurried:
            cycle.keep_alive = True
        await send(message)
        if hurried and not cycle.disconnected:
            close()

    async def run(scope: Any, receive: Receive, send: Send) -> None:
        await app(scope, receive, lambda message: unhurried(message, send))

    return run


def _without_chunks(app: Any, cycle: RequestResponseCycle) -> Any:
    """For a client of HTTP/1.0, which knows no transfer coding (RFC 9112 §6.1): an answer of unknown length ends with
    the connection. One that breaks off ends with a reset, or it would look whole.
    """
    ends_it = False

    async def plain(message: Message) -> None:
        nonlocal ends_it
        if message["type"] == "http.response.start":
            ends_it = all(name != b"content-length" for name, _ in message["headers"])
            if ends_it:
                cycle.chunked_encoding = False
        elif ends_it:
            cycle.expected_content_length = len(message["body"])
        await cycle.send(message)  # type: ignore[arg-type]

    async def run(scope: Any, receive: Receive, send: Send) -> None:
        await app(scope, receive, plain)
        if ends_it and not cycle.response_complete and not cycle.transport.is_closing():
            cycle.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            cycle.transport.abort()

    return run
