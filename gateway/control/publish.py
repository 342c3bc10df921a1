"""Rows → table → the section `routes`, from which every gateway worker serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import msgspec
import redis
from django.conf import settings
from msgspec.structs import replace

from anumate.lib.redis import UNAVAILABLE, connect
from gateway.control.compile import Skipped, compile_table
from gateway.control.issuers import publish_issuers
from gateway.proxy.table import RoutingTable, decode, encode
from registry.live import sections
from registry.models import Revision

logger = logging.getLogger("anumate.publish")

SECTION: Final = "routes"
_SHOWN: Final = ("gateway.", "registry.Tenant", "registry.Service", "registry.ApiKey")
"""Models of which a table shows something."""


class Published(NamedTuple):
    """`stored` is False when the store held this table, or a newer one, already."""

    revision: int
    routes: int
    stored: bool
    skipped: list[Skipped]


class Served(NamedTuple):
    """A table, and the very bytes that workers compare digests of."""

    table: RoutingTable
    body: bytes


class Publisher:
    """Publishes, one table at a time, and remembers what it published: only that saves work, nothing relies on it."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._served: Served | None = None
        self._done: tuple[object, Published] | None = None
        self._skipped: list[Skipped] = []

    def publish(self, *, repeat: bool = True) -> Published:
        """Compile the rows and hand the table to the store, which takes it only when it is newer than its own.

        With `repeat` False, what this process published already is not compiled again: the edits of one transaction,
        and those that came while another was being published, cost one table.

        Raises:
            redis.ConnectionError and its like: the store is away; beat tries again.
        """
        with self._one_at_a_time:
            # The number first: a change in between makes the rows newer than their number, and is published once more.
            current, _ = Revision.objects.get_or_create(pk=1)
            place = (current.origin, current.number)
            if not repeat and self._done is not None and self._done[0] == place:
                return self._done[1]._replace(stored=False)
            published = self._publish(str(current.origin), current.number)
            self._done = (place, published)
            return published

    def current(self) -> RoutingTable | None:
        """The table of the rows as they are, if this process has just compiled it."""
        number = Revision.objects.filter(pk=1).values_list("origin", "number").first()
        if number is None or self._done is None or self._done[0] != number or self._served is None:
            return None
        return self._served.table

    def _publish(self, origin: str, revision: int) -> Published:
        compiled = compile_table(revision)
        with _store() as store:
            publish_issuers(store)
            body = self._body_of(store, compiled.table)
            stored = sections.publish(store, SECTION, origin=origin, revision=revision, body=body)
        self._report(compiled.skipped)
        return Published(revision, len(compiled.table.routes), stored, compiled.skipped)

    def _body_of(self, store: redis.Redis, table: RoutingTable) -> bytes:
        """The bytes that are served already, if only the number changed: a new key moves no route."""
        if self._served is None or not _equal(self._served.table, table):
            self._served = _stored(store)
        if self._served is None or not _equal(self._served.table, table):
            self._served = Served(table, encode(table))
        return self._served.body

    def _report(self, skipped: list[Skipped]) -> None:
        """Say what is left out, once, not every time that beat republishes."""
        for each in skipped:
            if each not in self._skipped:
                logger.warning("%s", each)
        self._skipped = skipped


publisher = Publisher()


def publish() -> Published:
    """Publish the table of the rows as they are now; see `Publisher.publish`."""
    return publisher.publish()


def publish_if_possible(*, repeat: bool = True) -> None:
    """The same, where a store that is away is no reason to fail: beat comes again."""
    try:
        publisher.publish(repeat=repeat)
    except UNAVAILABLE as error:
        logger.warning("The store is away, the routes reach the gateway when it is back: %s", error)


def on_change(model: str, **_: Any) -> None:
    """After the commit of a change. An edit that is saved never fails because of the store."""
    if model.startswith(_SHOWN):
        publish_if_possible(repeat=False)


def _stored(store: redis.Redis) -> Served | None:
    body: Any = store.hget(sections.SECTIONS, f"{SECTION}:body")
    with suppress(msgspec.MsgspecError):
        table, skipped = decode(body or b"")
        return None if skipped else Served(table, body)
    return None


def _equal(one: RoutingTable, other: RoutingTable) -> bool:
    return replace(one, revision=0) == replace(other, revision=0)


@contextmanager
def _store() -> Iterator[redis.Redis]:
    client = connect(settings.REDIS_URL)
    try:
        yield client
    finally:
        client.close()
