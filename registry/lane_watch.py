"""The lane for those who look: what is there, a long poll until it changes, and a stream of what does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from anumate.lib.problem import Problem
from registry.lane_request import ClientGone, Request, admit
from registry.live.catalog import Pair
from registry.live.discovery import Changes, Ends, Items, Query, parse_query, patience
from registry.live.node import Node
from registry.live.ops import Index

CATCH_UP_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 15.0
# A key that expires is looked at on the second; this bounds what a clock that is set anew can do.
KEY_CHECK_SECONDS: Final = 60.0

_JSON: Final = (b"content-type", b"application/json")
_EVENTS: Final = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))
_NO_STORE: Final = (b"cache-control", b"no-store")


class Lookout:
    """Answers `GET /v1/services` and `GET /v1/services/watch`. `take` raises Problem where a tenant asks too often."""

    def __init__(
        self,
        node: Node,
        items: Items,
        take: Callable[[Request], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._node = node
        self._take = take
        self._chance = chance
        self._items = items
        self._changes = Changes(node.catalog)
        self._listings: dict[tuple[str, Query], bytes] = {}
        self._keys_changed = asyncio.Event()
        # After the node's own, so that whoever is woken finds the new keys in force.
        for section in ("keys", "tenants"):
            node.on_section(section, self._tell_of_keys)
        node.on_leave(self._look_again)

    async def discover(self, request: Request) -> None:
        admit(self._node.keys, request, "registry:read")
        self._take(request)
        query = _query(request)
        if query.index is not None:
            await self._wait(request, query.index, query)
            admit(self._node.keys, request, "registry:read")
        now = time.time()
        await request.answer(200, self._listing(query, request.tenant, now), _JSON, _NO_STORE, *self._staleness(now))

    def _listing(self, query: Query, tenant: str, now: float) -> bytes:
        """The body of an answer. Those who look for the same in one turn of the loop, as many do that one change has
        woken, share it; nothing can come in between."""
        what = (tenant, msgspec.structs.replace(query, index=None, wait=None))
        body = self._listings.get(what)
        if body is None:
            if not self._listings:
                asyncio.get_running_loop().call_soon(self._listings.clear)
            found = query.find(self._node.catalog, tenant, now)
            body = self._listings[what] = self._items.encode(found, self._node.catalog.index, now)
        return body

    async def watch(self, request: Request) -> None:
        """A snapshot, or what changed since the index of a client that comes back; then each service that changes."""
        admit(self._node.keys, request, "registry:read")
        self._take(request)
        query = _query(request, resume=request.headers.get(b"last-event-id", b"").decode("latin-1"))
        ends = Ends(self._node.catalog, request.tenant)
        watcher = _Watcher(query, request.tenant, ends)
        stop = self._node.catalog.watch(watcher.hear)
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
                if self._node.leaving:
                    await request.write(b"", last=True)
                    return
                await self._admit_again(request, "registry:read")
                events = [self._event("change", request, query, service) for service in services]
                await request.write(b"".join(events) or b": still here\n\n")
        finally:
            stop()
            gone.cancel()
            refused.cancel()

    async def _admit_again(self, request: Request, scope: str) -> None:
        """`admit` for a stream that is open: its end is all that can be told to a key that lost its right."""
        try:
            admit(self._node.keys, request, scope)
        except Problem:
            await request.write(b"", last=True)
            raise

    async def _refusal(self, request: Request, scope: str) -> None:
        """Returns once the key that let the request in does so no longer (revoked, expired, its tenant inactive), or
        the server is about to stop."""
        while True:
            changed = self._keys_changed
            if self._is_over(request, scope):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_key_lasts(request)):
                    await changed.wait()

    def _is_over(self, request: Request, scope: str) -> bool:
        """Whether a request that was let in has to end: its key has lost its right, or the server is about to stop."""
        try:
            admit(self._node.keys, request, scope)
        except Problem:
            return True
        return self._node.leaving

    def _tell_of_keys(self, _body: bytes) -> None:
        self._look_again()

    def _look_again(self) -> None:
        self._changes.look_again()
        self._keys_changed.set()
        self._keys_changed = asyncio.Event()

    async def _wait(self, request: Request, index: Index, query: Query) -> None:
        """With an index: until it is known here. With a wait as well: until something relevant changed after it."""
        if query.wait is None:
            await self._changes.catch_up(index, CATCH_UP_SECONDS)
        elif not self._changes.since(index, request.tenant, query.service_name):
            gone = asyncio.ensure_future(request.gone())
            try:
                await self._changes.wait(
                    index,
                    request.tenant,
                    query.service_name,
                    patience(query.wait, self._chance()),
                    until=gone,
                    stop=lambda: self._is_over(request, "registry:read"),
                    ask_again=lambda: _key_lasts(request),
                )
                if gone.done():
                    raise ClientGone
            finally:
                gone.cancel()

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


def _key_lasts(request: Request) -> float:
    """How many seconds the key may be taken to be good, if nothing is heard of it."""
    expires_at = request.key.expires_at if request.key else 0.0
    left = expires_at - time.time() if expires_at else KEY_CHECK_SECONDS
    return min(max(left, 0.01), KEY_CHECK_SECONDS)


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


def _query(request: Request, resume: str = "") -> Query:
    try:
        text = request.query.decode("ascii")
    except UnicodeDecodeError:
        raise Problem("malformed_request", "The query is not ASCII; percent-encode it.") from None
    return parse_query(f"{text}&index={resume}" if resume and "index=" not in text else text)
