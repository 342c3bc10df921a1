"""Asks one target whether it is well. Network only: no database, no Redis.

`probe` never raises: whatever a target does, hang, reset, talk nonsense, becomes an Outcome with a sentence. HTTP is
spoken by hand on httptools, because a check needs a status and nothing else; a full client costs twenty times as much.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import quote

import httptools

from health.verdict import Outcome
from registry.live.addresses import Refused, is_address, resolve

HEAD_LIMIT: Final = 64 * 1024
BODY_LIMIT: Final = 64 * 1024
BODY_GRACE: Final = 1.0
"""Seconds and bytes we wait for the body to end, only so that a polite server is not cut off in mid-answer."""
NAMES_KEPT: Final = 5.0
"""Seconds a resolved name is used again."""

# A probe asks whether somebody is at home, not who it is; as Kubernetes' probes do, it takes any certificate.
ANY_CERTIFICATE: Final = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname = False
ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE

_host = re.compile(r"[A-Za-z0-9._:-]{1,253}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and for how long. `path` is of HTTP only."""

    kind: Literal["http", "tcp"]
    host: str
    port: int
    timeout: float
    path: str = "/"
    tls: bool = False

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unreachable(Exception):
    """The target cannot be asked; the text is the sentence that says why."""


class Resolver:
    """Addresses of host names. Lives as long as one event loop; a name is looked up once for all who wait for it."""

    def __init__(self) -> None:
        self._lookups: dict[str, tuple[float, asyncio.Task[list[str]]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """Where `host` may be reached.

        Raises:
            Unreachable: it has no address, or only such that may not be asked.
        """
        try:
            return await (resolve(host) if is_address(host) else self._look_up(host))
        except Refused as refused:
            raise Unreachable(f"{host} is never asked. {refused}") from None
        except OSError:
            raise Unreachable(f"The name {host} has no address") from None

    async def _look_up(self, host: str) -> list[str]:
        now = time.monotonic()
        expires, task = self._lookups.get(host, (0.0, None))
        if task is None or expires < now:
            task = asyncio.ensure_future(resolve(host))
            self._lookups[host] = now + NAMES_KEPT, task
        return await asyncio.shield(task)


async def probe(target: Target, resolver: Resolver) -> Outcome:
    """What `target` answers, within its timeout."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(target.timeout):
            return await _ask(target, resolver, started)
    except TimeoutError:
        sentence = f"{_asking(target)}: no answer within {target.timeout:g} s"
    except Unreachable as error:
        sentence = str(error)
    return Outcome("failed", sentence, time.monotonic() - started)


async def _ask(target: Target, resolver: Resolver, started: float) -> Outcome:
    if not _host.fullmatch(target.host):
        raise Unreachable("Its host is no host name and no address")
    failure: Exception | None = None
    for address in await resolver.addresses(target.host):
        try:
            if target.kind == "http":
                status, answered = await _status(target, address)
                return _outcome(target, status, answered - started)
            await _connect(target, address)
            return Outcome("passed", f"{target.place} accepts connections", time.monotonic() - started)
        except OSError as error:
            failure = Unreachable(f"{_asking(target)}: {_cause(error)}")
    raise failure or Unreachable(f"The name {target.host} has no address")


def _asking(target: Target) -> str:
    return f"GET {target.path}" if target.kind == "http" else f"A connection to {target.place}"


def _outcome(target: Target, status: int, latency: float) -> Outcome:
    sentence = f"GET {target.path} answered {status}"
    if 200 <= status < 300:
        return Outcome("passed", sentence, latency, status)
    if status == 429:
        return Outcome("warned", f"{sentence}: it is asked too often", latency, status)
    if 300 <= status < 400:
        sentence += ", and checks do not follow redirects"
    return Outcome("failed", sentence, latency, status)


def _cause(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "the connection was refused"
        case ConnectionResetError() | BrokenPipeError():
            return "the connection was reset"
        case ssl.SSLError():
            return f"TLS failed ({(error.reason or 'unknown reason').replace('_', ' ').lower()})"
    return (error.strerror or str(error) or type(error).__name__).lower()


async def _connect(target: Target, address: str) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, address, target.port)
    transport.abort()


async def _status(target: Target, address: str) -> tuple[int, float]:
    """The status that `target` answers with, and when it did."""
    loop = asyncio.get_running_loop()
    context = ANY_CERTIFICATE if target.tls else None
    name = target.host if target.tls else None
    transport, exchange = await loop.create_connection(
        lambda: _Exchange(target, loop), address, target.port, ssl=context, server_hostname=name
    )
    try:
        await exchange.over
    finally:
        transport.abort()
    return exchange.status, exchange.answered


class _Exchange(asyncio.Protocol):
    """One GET. `over` is set when the answer has ended, or when its end is no longer worth waiting for."""

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self.loop = loop
        self.over: asyncio.Future[None] = loop.create_future()
        self.status = 0
        self.answered = 0.0
        self.received = 0
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The path may come from a registration: quoted, so that it cannot end the line and add one of its own.
        path = quote(self.target.path, safe="/?&=%:;,@!$'()*+~-._")
        cast("asyncio.WriteTransport", transport).write(
            f"GET {path} HTTP/1.1\r\nHost: {self.target.place}\r\nUser-Agent: anumate-health\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
        )

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end(Unreachable(f"{_asking(self.target)}: the answer is not HTTP"))
        if self.status and self.received > BODY_LIMIT:
            self._end()
        elif not self.status and self.received > HEAD_LIMIT:
            self._end(Unreachable(f"{_asking(self.target)}: the head of the answer is too large"))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status >= 200 or status == 101:  # what comes before is only news on the way
            self.status = status
            self.answered = time.monotonic()
            self.loop.call_later(BODY_GRACE, self._end)

    def on_message_complete(self) -> None:
        if self.status:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.status:
            self._end()
        else:
            self._end(exc or Unreachable(f"{_asking(self.target)}: the connection was closed before an answer"))

    def _end(self, failure: Exception | None = None) -> None:
        if self.over.done():
            return
        if failure and not self.status:
            self.over.set_exception(failure)
        else:
            self.over.set_result(None)
