"""Rows → table → the section `routes`, from which every gateway worker serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import redis
from django.conf import settings
from msgspec.structs import replace

from anumate.lib.redis import UNAVAILABLE, connect
from gateway.control.compile import Skipped, compile_table
from gateway.proxy.table import RoutingTable, decode, encode
from registry.live import sections
from registry.models import Revision

logger = logging.getLogger("anumate.publish")

SECTION = "routes"


class Served(NamedTuple):
    table: RoutingTable
    body: bytes


_one_at_a_time = threading.Lock()
_last_skipped: list[Skipped] = []
_served: Served | None = None


class Published(NamedTuple):
    """`stored` is False when the store held this table, or a newer one, already."""

    revision: int
    routes: int
    stored: bool
    skipped: list[Skipped]


def publish() -> Published:
    """Compile the rows and hand the table to the store, which takes it only when it is newer than its own.

    Raises:
        redis.ConnectionError and its like: the store is away; beat tries again.
    """
    with _one_at_a_time, _store() as store:
        # The number first: a change in between makes the rows newer than their number, and is published once more.
        current, _ = Revision.objects.get_or_create(pk=1)
        compiled = compile_table(current.number)
        body = _body_of(store, compiled.table)
        stored = sections.publish(store, SECTION, origin=str(current.origin), revision=current.number, body=body)
    _report(compiled.skipped)
    return Published(current.number, len(compiled.table.routes), stored, compiled.skipped)


def _body_of(store: redis.Redis, table: RoutingTable) -> bytes:
    """The bytes that are served already, if only the number changed: a new key moves no route."""
    global _served
    if _served is None or not _equal(_served.table, table):
        _served = _stored(store)
        if _served is None or not _equal(_served.table, table):
            _served = Served(table, encode(table))
    return _served.body


def _stored(store: redis.Redis) -> Served | None:
    body: Any = store.hget(sections.SECTIONS, f"{SECTION}:body")
    with suppress(msgspec.MsgspecError):
        return Served(decode(body), body) if body else None
    return None


def _equal(one: RoutingTable, other: RoutingTable) -> bool:
    return replace(one, revision=0) == replace(other, revision=0)


def on_change(**_: Any) -> None:
    """After the commit of any change. A store that is away must not fail an edit that is saved."""
    try:
        publish()
    except UNAVAILABLE as error:
        logger.warning("The store is away, the edit reaches the gateway when it is back: %s", error)


@contextmanager
def _store() -> Iterator[redis.Redis]:
    client = connect(settings.REDIS_URL)
    try:
        yield client
    finally:
        client.close()


def _report(skipped: list[Skipped]) -> None:
    """Say what is left out, once, not every time that beat republishes."""
    for each in skipped:
        if each not in _last_skipped:
            logger.warning("%s", each)
    _last_skipped[:] = skipped
