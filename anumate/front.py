"""What every request of port 8090 passes before it reaches whom it is for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from django.http.request import split_domain_port, validate_host

from anumate.lib.cors import REQUEST_HEADERS, REQUEST_METHOD, Cors, Header
from anumate.lib.problem import CONTENT_TYPE, Problem
from registry.lane_request import BODY_SECONDS, too_slow
from registry.requests import fit_id

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

logger = logging.getLogger("anumate.front")

_PROBLEM: Final = (b"content-type", CONTENT_TYPE.encode())


def known_hosts_only(app: App, hosts: Sequence[str]) -> App:
    """Refuses requests for names that are not ours: Django's rule (ALLOWED_HOSTS), for everything on this port."""

    async def known(scope: Any, receive: Receive, send: Send) -> None:
        asked = _host(scope)
        if validate_host(split_domain_port(asked)[0], hosts):
            await app(scope, receive, send)
        else:
            detail = f"{ascii(asked)[:300]} is not a name of this control plane; ALLOWED_HOSTS has those that are."
            await refuse(scope, send, Problem("malformed_request", detail))

    return known


def _host(scope: Any) -> str:
    """The name that was asked for; without a Host field, as HTTP/1.0 may be, the server's own."""
    if host := field(scope, b"host"):
        return host.decode("latin-1")
    name, port = scope.get("server") or ("", None)
    return f"[{name}]" if ":" in name else f"{name}:{port}"


def for_pages_elsewhere(app: App, rules: Cors) -> App:
    """Lets browsers call from the origins in CORS_ORIGINS; without any, nothing is added and no preflight answered."""
    if not rules.enabled:
        return app

    async def shared(scope: Any, receive: Receive, send: Send) -> None:
        origin = field(scope, b"origin") or None
        added = rules.fields(origin)
        if rules.is_preflight(scope["method"], field(scope, REQUEST_METHOD)):
            headers = [*added, *rules.preflight(origin, field(scope, REQUEST_HEADERS))]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, _adding(added, send))

    return shared


def _adding(added: list[Header], send: Send) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return told


def whole_bodies(app: App, limit: int, seconds: float = BODY_SECONDS) -> App:
    """Hands bodies on whole, with their length: DRF takes one that came in chunks, without a length, for empty.

    No more than `limit` bytes are ever held; a larger body is refused as soon as that is known, one that takes over
    `seconds` to come with 408.
    """

    async def whole(scope: Any, receive: Receive, send: Send) -> None:
        declared = field(scope, b"content-length")
        if scope["method"] in {"GET", "HEAD"} and not declared and not field(scope, b"transfer-encoding"):
            await app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(seconds):
                body = await _body(receive, limit, int(declared) if declared.isdigit() else 0)
        except Problem as problem:
            await refuse(scope, send, problem)
        except TimeoutError:
            await refuse(scope, send, too_slow(seconds))
        else:
            if body is not None:
                await app(_with_length(scope, len(body)), _after(body, receive), send)

    return whole


async def _body(receive: Receive, limit: int, declared: int) -> bytes | None:
    """None: the client hung up. Raises Problem: payload_too_large."""
    if declared > limit:
        raise _too_large(limit)
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def _with_length(scope: Any, length: int) -> Any:
    headers = [each for each in scope["headers"] if each[0] not in {b"transfer-encoding", b"content-length"}]
    if length:
        headers.append((b"content-length", b"%d" % length))
    return {**scope, "headers": headers}


def _after(body: bytes, receive: Receive) -> Receive:
    """First the body, then what else comes: that the client hung up."""
    told = False

    async def told_once() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return told_once


def _too_large(limit: int) -> Problem:
    return Problem("payload_too_large", f"A body here has at most {limit} bytes.")


# What they share


def field(scope: Any, name: bytes) -> bytes:
    """A header field; lines of one name make one list, empty when there is none."""
    return b",".join(value for each, value in scope["headers"] if each == name)


async def refuse(scope: Any, send: Send, problem: Problem) -> None:
    """Answer with the problem, and leave one line in the log."""
    known = fit_id(field(scope, b"x-request-id").decode("latin-1"))
    logger.warning(
        "refused %s %s: %d %s: %s request_id=%s",
        scope["method"],
        ascii(scope["path"])[1:-1],
        problem.status,
        problem.code,
        problem.detail,
        known,
    )
    body = problem.encode(known)
    headers = [_PROBLEM, (b"content-length", b"%d" % len(body)), (b"x-request-id", known.encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
