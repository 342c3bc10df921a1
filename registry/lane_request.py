"""A request as the lane reads it, and who may make it."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from anumate.lib.problem import Problem
from registry.live.keys import DEFAULT_TENANT, KeyRecord, KeyRing
from registry.live.presented import presented_key
from registry.live.registration import MAX_BODY

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_SECONDS: Final = 15.0
"""For a body, from the end of its head on; the largest that is taken needs a hundredth of that on any network."""
_acceptable_id = re.compile(rb"[A-Za-z0-9._:-]{1,64}").fullmatch


class ClientGone(Exception):
    """Nobody is left to answer."""


class Request:
    """What the lane reads of an ASGI request. `key` and `tenant` are known once `admit` has let it in."""

    __slots__ = ("_receive", "_send", "headers", "id", "key", "method", "path", "peer", "query", "started", "tenant")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers = _as_lists(scope["headers"])
        offered = self.headers.get(b"x-request-id", b"")
        self.id: bytes = offered if _acceptable_id(offered) else os.urandom(16).hex().encode()
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self.key: KeyRecord | None = None
        self.tenant = ""
        self.started = False
        self._receive = receive
        self._send = send

    async def body(self) -> bytes:
        """Raises Problem before more than the limit is held."""
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY:
            raise _too_large()
        _require_json(self.headers.get(b"content-type", b""))
        _require_plain(self.headers.get(b"content-encoding", b""))
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._whole_body()
        except TimeoutError:
            raise too_slow(BODY_SECONDS) from None

    async def _whole_body(self) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size > MAX_BODY:
                raise _too_large()
            parts.append(part)
        return b"".join(parts)

    async def gone(self) -> None:
        """Returns when the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        length = () if status == 204 else ((b"content-length", str(len(body)).encode()),)
        await self.start(status, *headers, *length)
        await self.write(b"" if self.method == "HEAD" else body, last=True)

    async def start(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        self.started = True
        every = [*headers, (b"x-request-id", self.id)]
        await self._send({"type": "http.response.start", "status": status, "headers": every})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})


def admit(keys: KeyRing, request: Request, scope: str) -> None:
    """Let in who shows a key that may do this, in the tenant it acts for."""
    key = keys.verify(presented_key(request.headers), time.time())
    request.key = key
    key.require_network(request.peer)
    if not key.allows(scope):
        raise Problem("scope_missing", f"This needs scope {scope}.")
    request.tenant = key.tenant
    wanted = request.headers.get(b"x-tenant", b"").decode("latin-1")
    if wanted and wanted != key.tenant:
        if key.tenant != DEFAULT_TENANT or "admin" not in key.scopes:
            raise Problem("scope_missing", f"Only an admin key of tenant {DEFAULT_TENANT} acts for another tenant.")
        tenant = keys.tenant(wanted)
        if tenant is None or not tenant.active:
            raise Problem("not_found", "There is no tenant by this name.")
        request.tenant = wanted


def _as_lists(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Lines of one name as one list (RFC 9110 §5.2): where only one value makes sense, the list does not."""
    known: dict[bytes, bytes] = {}
    for name, value in headers:
        known[name] = known[name] + b", " + value if name in known else value
    return known


def _require_json(content_type: bytes) -> None:
    media = content_type.partition(b";")[0].strip().lower()
    if media and media != b"application/json" and not media.endswith(b"+json"):
        raise Problem("unsupported_media_type", "Send JSON, with Content-Type: application/json.")


def _require_plain(content_encoding: bytes) -> None:
    if content_encoding.strip().lower() not in {b"", b"identity"}:
        accepted = {"Accept-Encoding": "identity"}
        raise Problem("unsupported_media_type", "Send the body as it is, without Content-Encoding.", headers=accepted)


def too_slow(seconds: float) -> Problem:
    """What is left of the body must not be read as the next request, so the connection ends."""
    return Problem("request_timeout", f"The body took over {seconds:g} s to come.", headers={"Connection": "close"})


def _too_large() -> Problem:
    # The server throws the rest of the body away as it comes. Closing instead would reset the connection, and a client
    # that is still sending might never see the answer.
    return Problem("payload_too_large", f"A body here has at most {MAX_BODY} bytes.")
