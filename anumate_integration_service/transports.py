"""HTTP by service name: `httpx.AsyncClient(transport=AnumateTransport(client))`, then `GET http://orders/v1/x`.

    http://orders  https://orders     an instance of orders
    http://grpc.orders                the endpoint of that name
    http://example.com  http://10.0.0.7  http://orders:8080  http://localhost
                                      go out as ever: a dot, an address or a port names a host, not a service

A request may say more: `extensions={"anumate": {"version": ">=1.2,<2", "tags": ["eu"], "key": "user-7"}}`, with any of
version, tags, capabilities, zone, key (what the hash strategy hashes) and deadline (seconds for all attempts). What
answered is in `response.extensions["anumate"]`.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

import anyio
import httpx

from anumate_integration_service import errors
from anumate_integration_service.breaker import Outcome
from anumate_integration_service.deadlines import remaining
from anumate_integration_service.retries import IDEMPOTENT, TRY_ELSEWHERE
from anumate_integration_service.upstreams import Address, Attempt, Call, Directory, Question, Upstreams

EXTENSION: Final = "anumate"
TRACEPARENT: Final = "traceparent"
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# Our own limit or the caller's mistake, of which the instance knows nothing.
_NOT_ITS_FAULT: Final = (httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol)


class NoInstances(errors.NoInstances, httpx.ConnectError):
    """`errors.NoInstances`, for those who expect what httpx raises: nothing was sent."""


class CircuitOpen(errors.CircuitOpen, httpx.ConnectError):
    """`errors.CircuitOpen`, for those who expect what httpx raises: nothing was sent."""


class DeadlinePassed(httpx.ConnectTimeout):
    """The time that the caller gave was over before this was sent."""


class _Exchange:
    """One request by service name: everything about it that needs no waiting."""

    def __init__(self, core: Upstreams, request: httpx.Request, question: Question, wanted: Mapping[str, Any]) -> None:
        self._core = core
        self._request = request
        self._repeatable = request.method in IDEMPOTENT and isinstance(request.stream, httpx.ByteStream)
        left = [each for each in (remaining(), wanted.get("deadline")) if each is not None]
        self._ends = time.monotonic() + min(left) if left else None
        if TRACEPARENT not in request.headers:
            request.headers[TRACEPARENT] = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-00"
        self._call: Call
        self._question = question
        self._key = str(wanted.get("key", ""))

    def first(self) -> Attempt:
        self._check_deadline()
        try:
            self._call, attempt = self._core.first(self._question, self._key)
        except errors.NoInstances as error:
            raise NoInstances(error.service) from None
        except errors.CircuitOpen as error:
            raise CircuitOpen(error.service, error.retry_after) from None
        return attempt

    def request_to(self, attempt: Attempt) -> httpx.Request:
        """The request as the instance gets it: another address, the same Host, no wait beyond the deadline."""
        self._check_deadline()
        scheme, host, port = attempt.upstream.address
        request, extensions = self._request, dict(self._request.extensions)
        if (left := self.left()) is not None:
            limits = dict.fromkeys(("connect", "read", "write", "pool")) | dict(extensions.get("timeout", {}))
            extensions["timeout"] = {
                name: left if limit is None else min(limit, left) for name, limit in limits.items()
            }
        url = request.url.copy_with(scheme=scheme, host=host, port=port)
        return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)

    def left(self) -> float | None:
        """Seconds until the deadline, if there is one."""
        return None if self._ends is None else self._ends - time.monotonic()

    def failed(self, attempt: Attempt, error: Exception) -> Attempt | None:
        """Whom to try next, if sending again is safe: nothing was sent, or sending twice changes nothing."""
        if isinstance(error, DeadlinePassed) or not isinstance(error, httpx.TransportError):
            self.given_up(attempt, Outcome.IGNORED)
            return None
        self.given_up(attempt, Outcome.IGNORED if isinstance(error, _NOT_ITS_FAULT) else Outcome.FAILURE)
        if isinstance(error, _UNSENT) or (self._repeatable and not isinstance(error, _NOT_ITS_FAULT)):
            return self._again()
        return None

    def answered(self, attempt: Attempt, response: httpx.Response) -> Attempt | None:
        """Whom to try next when this answer asks for that; the answer's own stream is still to be closed."""
        self._core.vote(attempt, Outcome.FAILURE if response.status_code >= 500 else Outcome.SUCCESS)
        return self._again() if self._repeatable and response.status_code in TRY_ELSEWHERE else None

    def given_up(self, attempt: Attempt, outcome: Outcome = Outcome.CANCELLED) -> None:
        self._core.vote(attempt, outcome)
        self._core.end(attempt)

    def mark(self, attempt: Attempt, response: httpx.Response) -> None:
        instance = attempt.upstream.instance
        told = {"service": instance.name, "instance_id": instance.instance_id, "attempts": len(self._call.tried)}
        response.extensions = {**response.extensions, EXTENSION: told}

    def _again(self) -> Attempt | None:
        if self._ends is not None and time.monotonic() >= self._ends:
            return None
        return self._core.again(self._call)

    def _check_deadline(self) -> None:
        if self._ends is not None and time.monotonic() >= self._ends:
            raise DeadlinePassed("the deadline passed before this was sent", request=self._request)


class _Shared:
    """What both transports are made of."""

    def __init__(
        self, directory: Directory, *, zone: str = "", verify: ssl.SSLContext | None = None, **core: Any
    ) -> None:
        self._zone = zone
        self._verify = verify
        # Making a context with every root certificate takes tens of milliseconds; plain connections need none.
        self._plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._core = Upstreams(directory, self._make_pool, **core)

    def _make_pool(self, address: Address) -> Any:
        raise NotImplementedError

    def _context(self, address: Address) -> ssl.SSLContext:
        if address.scheme != "https":
            return self._plain
        if self._verify is None:
            self._verify = httpx.create_ssl_context()
        return self._verify

    def _exchange(self, request: httpx.Request) -> _Exchange | None:
        """None when the request names a host, not a service."""
        wanted = request.extensions.get(EXTENSION) or {}
        named = self._named(request.url)
        if named is None:
            return None
        service, endpoint = named
        question = Question(
            service,
            request.url.scheme,
            endpoint,
            wanted.get("version", ""),
            tuple(wanted.get("tags", ())),
            tuple(wanted.get("capabilities", ())),
            wanted.get("zone", self._zone),
        )
        return _Exchange(self._core, request, question, wanted)

    def _named(self, url: httpx.URL) -> tuple[str, str] | None:
        """The service and the endpoint that a URL names."""
        host = url.host
        if url.port is not None or url.scheme not in {"http", "https"} or not host or _is_address(host):
            return None
        endpoint, dot, service = host.partition(".")
        if not dot:
            return None if host == "localhost" and not self._core.knows(host) else (host, "")
        return (service, endpoint) if "." not in service and self._core.knows(service) else None


class AnumateTransport(_Shared, httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient`. Options: `strategy` (one of `STRATEGIES`, p2c unless told), `zone` (preferred),
    `breaker` (a `BreakerPolicy` for each instance, None for none), `retries` (a `RetryPolicy`), `on_breaker` (called
    with the instance and each `Event`), `verify` (an SSL context), `direct` (the transport for hosts that are no
    service).

    Raises `NoInstances` and `CircuitOpen`, which are `httpx.ConnectError`s too, besides what httpx raises.
    """

    def __init__(self, directory: Directory, *, direct: httpx.AsyncBaseTransport | None = None, **options: Any) -> None:
        super().__init__(directory, **options)
        self._direct = direct

    def _make_pool(self, address: Address) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=self._context(address))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = self._exchange(request)
        if exchange is None:
            self._direct = self._direct or httpx.AsyncHTTPTransport(verify=self._verify or True)
            return await self._direct.handle_async_request(request)
        response: httpx.Response
        attempt: Attempt | None
        try:
            attempt = exchange.first()
        except errors.AnumateError:
            await self._close_left()
            raise
        while attempt is not None:
            last = attempt
            try:
                response = await self._send(exchange, attempt)
            except Exception as error:
                attempt = exchange.failed(attempt, error)
                if attempt is None:
                    await self._close_left()
                    raise
            except BaseException:
                exchange.given_up(attempt)
                raise
            else:
                attempt = exchange.answered(last, response)
                if attempt is not None:
                    await self._discard(exchange, last, response, attempt)
        exchange.mark(last, response)
        response.stream = _AsyncHeld(self, last, response.stream)
        return response

    async def _send(self, exchange: _Exchange, attempt: Attempt) -> httpx.Response:
        await self._close_left()
        if attempt.pause:
            await anyio.sleep(attempt.pause)
        request = exchange.request_to(attempt)
        try:
            # httpx limits each single wait; a deadline is for all of them together.
            with anyio.fail_after(exchange.left()):
                response: httpx.Response = await attempt.upstream.pool.handle_async_request(request)
                return response
        except TimeoutError as error:
            raise httpx.ReadTimeout("the deadline passed before the answer came", request=request) from error

    async def _discard(self, exchange: _Exchange, held: Attempt, response: httpx.Response, following: Attempt) -> None:
        try:
            with suppress(httpx.TransportError):
                await response.stream.aclose()  # type: ignore[union-attr]
        except BaseException:
            exchange.given_up(following)
            raise
        finally:
            self._core.end(held)

    async def _close_left(self) -> None:
        while (pool := self._core.closable()) is not None:
            with suppress(httpx.TransportError, OSError):
                await pool.aclose()

    async def aclose(self) -> None:
        for pool in [*self._core.drop_all(), *([self._direct] if self._direct else [])]:
            await pool.aclose()


class _AsyncHeld(httpx.AsyncByteStream):
    """An answer that counts as in flight until it is closed."""

    def __init__(self, transport: AnumateTransport, attempt: Attempt, stream: Any) -> None:
        self._transport = transport
        self._attempt = attempt
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except httpx.TransportError:
            self._transport._core.blame(self._attempt)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._transport._core.end(self._attempt)
        await self._transport._close_left()


class SyncAnumateTransport(_Shared, httpx.BaseTransport):
    """`AnumateTransport` for `httpx.Client`; threads may share it."""

    def __init__(self, directory: Directory, *, direct: httpx.BaseTransport | None = None, **options: Any) -> None:
        super().__init__(directory, **options)
        self._direct = direct

    def _make_pool(self, address: Address) -> httpx.BaseTransport:
        return httpx.HTTPTransport(verify=self._context(address))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        exchange = self._exchange(request)
        if exchange is None:
            self._direct = self._direct or httpx.HTTPTransport(verify=self._verify or True)
            return self._direct.handle_request(request)
        response: httpx.Response
        attempt: Attempt | None
        try:
            attempt = exchange.first()
        except errors.AnumateError:
            self._close_left()
            raise
        while attempt is not None:
            last = attempt
            try:
                self._close_left()
                if attempt.pause:
                    time.sleep(attempt.pause)
                response = attempt.upstream.pool.handle_request(exchange.request_to(attempt))
            except Exception as error:
                attempt = exchange.failed(attempt, error)
                if attempt is None:
                    self._close_left()
                    raise
            except BaseException:
                exchange.given_up(attempt)
                raise
            else:
                attempt = exchange.answered(last, response)
                if attempt is not None:
                    self._discard(exchange, last, response, attempt)
        exchange.mark(last, response)
        response.stream = _Held(self, last, response.stream)
        return response

    def _discard(self, exchange: _Exchange, held: Attempt, response: httpx.Response, following: Attempt) -> None:
        try:
            with suppress(httpx.TransportError):
                response.stream.close()  # type: ignore[union-attr]
        except BaseException:
            exchange.given_up(following)
            raise
        finally:
            self._core.end(held)

    def _close_left(self) -> None:
        while (pool := self._core.closable()) is not None:
            with suppress(httpx.TransportError, OSError):
                pool.close()

    def close(self) -> None:
        for pool in [*self._core.drop_all(), *([self._direct] if self._direct else [])]:
            pool.close()


class _Held(httpx.SyncByteStream):
    """An answer that counts as in flight until it is closed."""

    def __init__(self, transport: SyncAnumateTransport, attempt: Attempt, stream: Any) -> None:
        self._transport = transport
        self._attempt = attempt
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpx.TransportError:
            self._transport._core.blame(self._attempt)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._transport._core.end(self._attempt)
        self._transport._close_left()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
