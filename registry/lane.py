"""The fast lane for machines: register, heartbeat, deregister, discover, watch. Everything else goes to Django.

One Lua call for a write, none for a read. The lane is an ASGI app; its parts that decide are in `registry.live`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from anumate.lib.problem import CONTENT_TYPE, Problem
from anumate.lib.redis import UNAVAILABLE
from registry.lane_request import ClientGone, Receive, Request, Scope, Send, admit
from registry.lane_watch import Lookout
from registry.live.discovery import Items, moment
from registry.live.instances import Fact, Key
from registry.live.node import Node
from registry.live.ops import NO_QUOTA, Change, Index, Quota, QuotaExceeded
from registry.live.quotas import Rates
from registry.live.registration import Registered, Renewed, decode_heartbeat, decode_registration
from registry.live.replication import NotReplicated
from registry.names import INSTANCE_ID, LABEL, RESERVED_INSTANCES

logger = logging.getLogger("anumate.lane")

# Whoever comes after the lane may be stricter about what a message is.
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

ROOT: Final = "/v1/services"
REFRESH_SECONDS: Final = 2.0
SWEEPER_AWAY_SECONDS: Final = 3.0

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", CONTENT_TYPE.encode())

_label = re.compile(LABEL).fullmatch
_instance_id = re.compile(INSTANCE_ID).fullmatch


class Lane:
    """`workers` is how many processes serve the lane; each has its share of a tenant's requests a second."""

    def __init__(self, django: AsgiApp, node: Node, workers: int = 1) -> None:
        self._django = django
        self._rates = Rates(workers)
        self._node = node
        self._items = Items()
        self._lookout = Lookout(node, self._items, self._take)
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
        except ClientGone:
            return
        except Problem as problem:
            await self._refuse(request, problem)
        except QuotaExceeded as error:
            # When one of them leaves, nobody knows; a minute is what a sweep takes at most for one that has died.
            await self._refuse(request, Problem("quota_exceeded", str(error), headers={"Retry-After": "60"}))
        except NotReplicated:
            alone = "Too few of the store's replicas have it so far. Send it again."
            await self._refuse(request, Problem("unavailable", alone, headers={"Retry-After": "1"}))
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
                return _by_method(method, GET=self._lookout.discover)
            case ["", "register"]:
                return _by_method(method, POST=self._register)
            case ["", "watch"]:
                return _by_method(method, GET=self._lookout.watch)
            case ["", _, _, "heartbeat"]:
                return _by_method(method, PUT=self._heartbeat)
            case ["", _, named] if named and named not in RESERVED_INSTANCES:
                return _by_method(method, DELETE=self._deregister)
        return None

    # The endpoints

    async def _register(self, request: Request) -> None:
        admit(self._node.keys, request, "registry:write")
        registration = decode_registration(await request.body())
        key, document, check = registration.key(request.tenant), registration.document(), registration.check()
        if self._node.catalog.get(key) is None:
            self._take(request)
        lease = await self._node.store.register(key, document, check=check, quota=self._quota(request.tenant))
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
        admit(self._node.keys, request, "registry:write")
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
        admit(self._node.keys, request, "registry:write")
        key = _key(request)
        index = await self._node.store.deregister(key)
        if index is None:
            raise Problem("not_found", "This instance holds no lease.")
        self._absorb(index, Change(index.seq, "gone", key))
        await request.answer(204)

    # What they share

    def _take(self, request: Request) -> None:
        """Raises Problem `quota_exceeded` when the tenant has used up its requests of this second."""
        tenant = self._node.keys.tenant(request.tenant)
        if tenant is None or not (wait := self._rates.take(tenant, time.monotonic())):
            return
        detail = f"This tenant may send {tenant.max_requests_per_second} requests a second here."
        raise Problem("quota_exceeded", detail, headers={"Retry-After": str(math.ceil(wait))})

    def _quota(self, name: str) -> Quota:
        tenant = self._node.keys.tenant(name)
        return NO_QUOTA if tenant is None else Quota(tenant.max_services, tenant.max_instances)

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


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])
