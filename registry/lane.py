"""The fast lane for machines: register, heartbeat, deregister, discover, watch. Everything else goes to Django.

One Lua call for a write, none for a read. The lane is an ASGI app; its parts that decide are in `registry.live`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from anumate.lib.problem import CONTENT_TYPE, Problem
from anumate.lib.redis import UNAVAILABLE
from registry.live.catalog import Pair
from registry.live.discovery import Changes, Ends, Items, Query, moment, parse_query
from registry.live.instances import Fact, Key
from registry.live.keys import DEFAULT_TENANT, KeyRecord
from registry.live.node import Node
from registry.live.ops import Change, Index
from registry.live.registration import MAX_BODY, Registered, Renewed, decode_heartbeat, decode_registration
from registry.names import INSTANCE_ID, LABEL

logger = logging.getLogger("anumate.lane")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Whoever comes after the lane may be stricter about what a message is.
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

ROOT: Final = "/v1/services"
CATCH_UP_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 15.0
REFRESH_SECONDS: Final = 2.0
# A key that expires is looked at on the second; this bounds what a clock that is set anew can do.
KEY_CHECK_SECONDS: Final = 60.0
SWEEPER_AWAY_SECONDS: Final = 3.0

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", CONTENT_TYPE.encode())
_EVENTS: Final = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
_NO_STORE: Final = (b"cache-control", b"no-store")

_acceptable_id = re.compile(rb"[A-Za-z0-9._:-]{1,64}").fullmatch
_label = re.compile(LABEL).fullmatch
_instance_id = re.compile(INSTANCE_ID).fullmatch


class _ClientGone(Exception):
    """Nobody is left to answer."""


class Request:
    """What the lane reads of an ASGI request. `key` and `tenant` are known once `Lane.admit` has let it in."""

    __slots__ = ("_receive", "_send", "headers", "id", "key", "method", "path", "query", "started", "tenant")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        offered = self.headers.get(b"x-request-id", b"")
        self.id: bytes = offered if _acceptable_id(offered) else os.urandom(16).hex().encode()
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
        parts, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
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


class Lane:
    def __init__(self, django: AsgiApp, node: Node) -> None:
        self._django = django
        self._node = node
        self._items = Items()
        self._changes = Changes(node.catalog)
        self._keys_changed = asyncio.Event()
        # After the node's own, so that whoever is woken finds the new keys in force.
        for section in ("keys", "tenants"):
            node.on_section(section, self._tell_of_keys)
        node.background(self._stamp)
        node.background(self._refresh)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handler(scope)
        if handler is None:
            await self._django(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            await handler(request)
        except _ClientGone:
            return
        except Problem as problem:
            await self._refuse(request, problem)
        except UNAVAILABLE:
            away = "The store is away. What is known can be read; try again to write."
            await self._refuse(request, Problem("unavailable", away, headers={"Retry-After": "1"}))
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            await self._refuse(request, Problem("internal_error", "This is our fault, and was logged."))

    def _handler(self, scope: Scope) -> Callable[[Request], Awaitable[None]] | None:
        """Who answers this path; None: not the lane."""
        path: str = scope["path"]
        if not path.startswith(ROOT):
            return None
        method: str = scope["method"]
        match path[len(ROOT) :].split("/"):
            case [""]:
                return _by_method(method, GET=self._discover)
            case ["", "register"]:
                return _by_method(method, POST=self._register)
            case ["", "watch"]:
                return _by_method(method, GET=self._watch)
            case ["", _, _, "heartbeat"]:
                return _by_method(method, PUT=self._heartbeat)
            case ["", _, _] if method == "DELETE":
                return self._deregister
        return None

    # The endpoints

    async def _register(self, request: Request) -> None:
        self._admit(request, "registry:write")
        registration = decode_registration(await request.body())
        key, document, check = registration.key(request.tenant), registration.document(), registration.check()
        lease = await self._node.store.register(key, document, check=check)
        if lease.outcome != "renewed":
            self._absorb(lease.index, Change(lease.index.seq, "put", key, document, lease.registered_at))
        self._items.renewed(key, lease.expires_at)
        answer = Registered(
            key.service,
            key.id,
            document.lease_ttl,
            round(document.lease_ttl / 3, 3),
            str(lease.index),
            moment(lease.registered_at),
            moment(lease.expires_at),
        )
        await request.answer(201 if lease.outcome == "created" else 200, msgspec.json.encode(answer), _JSON)

    async def _heartbeat(self, request: Request) -> None:
        self._admit(request, "registry:write")
        key = _key(request)
        said = decode_heartbeat(await request.body()).fact(time.time())
        renewal = await self._node.store.heartbeat(key)
        if renewal is None:
            raise Problem("not_found", "This instance holds no lease. Register it again.")
        index = renewal.index
        if said is not None:
            index = await self._report(key, said) or index
        self._items.renewed(key, renewal.expires_at)
        answer = Renewed(key.id, renewal.lease_ttl, str(index), moment(renewal.expires_at))
        await request.answer(200, msgspec.json.encode(answer), _JSON)

    async def _deregister(self, request: Request) -> None:
        self._admit(request, "registry:write")
        key = _key(request)
        index = await self._node.store.deregister(key)
        if index is None:
            raise Problem("not_found", "This instance holds no lease.")
        self._absorb(index, Change(index.seq, "gone", key))
        await request.answer(204)

    async def _discover(self, request: Request) -> None:
        self._admit(request, "registry:read")
        query = _query(request)
        if query.index is not None:
            await self._wait(request, query.index, query)
            self._admit(request, "registry:read")
        now = time.time()
        found = query.find(self._node.catalog, request.tenant, now)
        body = self._items.encode(found, self._node.catalog.index, now)
        await request.answer(200, body, _JSON, _NO_STORE, *self._staleness(now))

    async def _watch(self, request: Request) -> None:
        """A snapshot, or what changed since the index of a client that comes back; then each service that changes."""
        self._admit(request, "registry:read")
        query = _query(request, resume=request.headers.get(b"last-event-id", b"").decode("latin-1"))
        ends = Ends(self._node.catalog, request.tenant)
        watcher = _Watcher(query, request.tenant, ends)
        stop = self._node.catalog.listen(watcher.hear)
        gone = asyncio.ensure_future(request.gone())
        refused = asyncio.ensure_future(self._refusal(request, "registry:read"))
        try:
            await request.start(200, *_EVENTS, _NO_STORE)
            if request.method == "HEAD":
                await request.write(b"", last=True)
                return
            watched = (query.service_name,) if query.service_name else self._node.catalog.services(request.tenant)
            ends.look(watched, time.time())
            await request.write(self._opening(request, query))
            while not gone.done():
                services = await watcher.next(gone, refused)
                await self._admit_again(request, "registry:read")
                events = [self._event("change", request, query, service) for service in services]
                await request.write(b"".join(events) or b": still here\n\n")
        finally:
            stop()
            gone.cancel()
            refused.cancel()

    # What they share

    def _admit(self, request: Request, scope: str) -> None:
        """Let in who shows a key that may do this, in the tenant it acts for."""
        key = self._node.keys.verify(_presented(request.headers), time.time())
        request.key = key
        if not key.allows(scope):
            raise Problem("scope_missing", f"This needs scope {scope}.")
        request.tenant = key.tenant
        wanted = request.headers.get(b"x-tenant", b"").decode("latin-1")
        if wanted and wanted != key.tenant:
            if key.tenant != DEFAULT_TENANT or "admin" not in key.scopes:
                raise Problem("scope_missing", f"Only an admin key of tenant {DEFAULT_TENANT} acts for another tenant.")
            tenant = self._node.keys.tenant(wanted)
            if tenant is None or not tenant.active:
                raise Problem("not_found", "There is no tenant by this name.")
            request.tenant = wanted

    async def _admit_again(self, request: Request, scope: str) -> None:
        """`_admit` for a stream that is open: its end is all that can be told to a key that lost its right."""
        try:
            self._admit(request, scope)
        except Problem:
            await request.write(b"", last=True)
            raise

    async def _refusal(self, request: Request, scope: str) -> None:
        """Returns once the key that let the request in does so no longer: revoked, expired, its tenant inactive."""
        while True:
            changed = self._keys_changed
            try:
                self._admit(request, scope)
            except Problem:
                return
            expires_at = request.key.expires_at if request.key else 0.0
            left = expires_at - time.time() if expires_at else KEY_CHECK_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0.01), KEY_CHECK_SECONDS)):
                    await changed.wait()

    def _tell_of_keys(self, _body: bytes) -> None:
        self._keys_changed.set()
        self._keys_changed = asyncio.Event()

    async def _report(self, key: Key, said: Fact) -> Index | None:
        known = self._node.catalog.get(key)
        before = known.facts.get("reported") if known else None
        if before is not None and before.value == said.value:
            said = msgspec.structs.replace(said, since=before.since)
        index = await self._node.store.put_fact(key, "reported", said)
        if index is not None:
            self._absorb(index, Change(index.seq, "fact", key, kind="reported", fact=said))
        return index

    def _absorb(self, index: Index, change: Change) -> None:
        self._node.catalog.absorb(change, index.epoch)

    async def _wait(self, request: Request, index: Index, query: Query) -> None:
        """With an index: until it is known here. With a wait as well: until something relevant changed after it."""
        if query.wait is None:
            await self._changes.catch_up(index, CATCH_UP_SECONDS)
        elif not self._changes.since(index, request.tenant, query.service_name):
            waiting = self._changes.wait(index, request.tenant, query.service_name, query.wait)
            changed = asyncio.ensure_future(waiting)
            gone = asyncio.ensure_future(request.gone())
            refused = asyncio.ensure_future(self._refusal(request, "registry:read"))
            try:
                await asyncio.wait((changed, gone, refused), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise _ClientGone
            finally:
                changed.cancel()
                gone.cancel()
                refused.cancel()

    def _opening(self, request: Request, query: Query) -> bytes:
        catalog, since = self._node.catalog, query.index
        told_as_of = catalog.floor(request.tenant)
        if (
            since is None
            or since.epoch != catalog.position.epoch
            or not told_as_of <= since.seq <= catalog.position.seq
        ):
            return self._event("snapshot", request, query, query.service_name)
        names = catalog.changed_since(request.tenant, since.seq)
        return (
            b"".join(self._event("change", request, query, name) for name in names if query.service_name in {"", name})
            or b": nothing changed\n\n"
        )

    def _event(self, kind: str, request: Request, query: Query, service: str) -> bytes:
        now, index = time.time(), self._node.catalog.index
        found = msgspec.structs.replace(query, service_name=service).find(self._node.catalog, request.tenant, now)
        data = self._items.encode(found, index, now)
        if kind == "change":
            data = b'{"name":"%b",%b' % (service.encode(), data[1:])
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (index.encode(), kind.encode(), data)

    def _staleness(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        since = self._node.catalog.stale_since
        return () if since is None else ((b"x-anumate-stale", b"%d" % max(0, now - since)),)

    async def _refuse(self, request: Request, problem: Problem) -> None:
        """Answer with the problem and leave one line in the log."""
        key = request.key.id if request.key else "-"
        level = logging.ERROR if problem.status >= 500 else logging.INFO
        logger.log(
            level,
            "refused %s %s: %d %s: %s (tenant %s, key %s, request %s)",
            request.method,
            _printable(request.path),
            problem.status,
            problem.code,
            _printable(problem.detail),
            request.tenant or "-",
            key or "-",
            request.id.decode(),
        )
        if request.started:
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        await request.answer(problem.status, problem.encode(request.id.decode()), _PROBLEM, *headers)

    # What goes on beside the requests

    async def _stamp(self) -> None:
        """Say each second that the lane is there, and sweep when the worker that should has gone silent."""
        while True:
            try:
                if await self._node.store.stamp() > SWEEPER_AWAY_SECONDS:
                    await self._node.store.sweep()
            except UNAVAILABLE as error:
                logger.debug("cannot stamp: %s", error)
            await asyncio.sleep(1.0)

    async def _refresh(self) -> None:
        """Learn what other processes did to the leases: `expires_at` is exact for one's own writes, else 2 s old."""
        while True:
            try:
                self._items.start_refresh()
                self._items.refresh(await self._node.store.leases())
            except UNAVAILABLE as error:
                logger.debug("cannot read the leases: %s", error)
            await asyncio.sleep(REFRESH_SECONDS)


class _Watcher:
    """Gathers the names of services that change, so that a slow client gets the newest of each and never a queue."""

    def __init__(self, query: Query, tenant: str, ends: Ends) -> None:
        self._ends = ends
        self._tenant = tenant
        self._service = query.service_name
        self._changed: set[str] = set()
        self._heard = asyncio.Event()

    def hear(self, pairs: set[Pair]) -> None:
        for tenant, service in pairs:
            if tenant == self._tenant and self._service in {"", service}:
                self._changed.add(service)
                self._heard.set()

    async def next(self, *until: asyncio.Future[Any]) -> list[str]:
        """What has changed since last asked; nothing when it is time for a sign of life."""
        heard: asyncio.Future[Any] = asyncio.ensure_future(self._heard.wait())
        patience = min(KEEP_ALIVE_SECONDS, self._ends.seconds(time.time()))
        await asyncio.wait((heard, *until), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()
        self._heard.clear()
        now = time.time()
        changed, self._changed = sorted(self._changed | self._ends.passed(now)), set()
        self._ends.look(changed, now)
        return changed


def _by_method(method: str, **handlers: Callable[[Request], Awaitable[None]]) -> Callable[[Request], Awaitable[None]]:
    handler = handlers.get("GET" if method == "HEAD" else method)
    if handler is not None:
        return handler
    allowed = ", ".join(handlers) + (", HEAD" if "GET" in handlers else "")

    async def refuse(request: Request) -> None:
        raise Problem("method_not_allowed", f"Use {allowed}.", headers={"Allow": allowed})

    return refuse


def _key(request: Request) -> Key:
    """The instance that the path names."""
    _, name, instance_id = request.path[len(ROOT) :].removesuffix("/heartbeat").split("/")
    if not (_label(name) and _instance_id(instance_id)):
        raise Problem("not_found", "There is no such instance.")
    return Key(request.tenant, name, instance_id)


def _query(request: Request, resume: str = "") -> Query:
    try:
        text = request.query.decode("ascii")
    except UnicodeDecodeError:
        raise Problem("malformed_request", "The query is not ASCII; percent-encode it.") from None
    return parse_query(f"{text}&index={resume}" if resume and "index=" not in text else text)


def _presented(headers: dict[bytes, bytes]) -> str | None:
    if (key := headers.get(b"x-api-key")) is not None:
        return key.decode("latin-1")
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _require_json(content_type: bytes) -> None:
    media = content_type.partition(b";")[0].strip().lower()
    if media and media != b"application/json" and not media.endswith(b"+json"):
        raise Problem("unsupported_media_type", "Send JSON, with Content-Type: application/json.")


def _require_plain(content_encoding: bytes) -> None:
    if content_encoding.strip().lower() not in {b"", b"identity"}:
        accepted = {"Accept-Encoding": "identity"}
        raise Problem("unsupported_media_type", "Send the body as it is, without Content-Encoding.", headers=accepted)


def _too_large() -> Problem:
    # The server throws the rest of the body away as it comes. Closing instead would reset the connection, and a client
    # that is still sending might never see the answer.
    return Problem("payload_too_large", f"A body here has at most {MAX_BODY} bytes.")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])
