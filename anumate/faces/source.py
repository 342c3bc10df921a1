"""What the live page is made from: this process's catalogue, the gateway's figures in Redis, the journal's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from channels.db import database_sync_to_async

from anumate.faces.breakers import merge_reports
from anumate.faces.broadcast import Broadcaster, Poll
from anumate.faces.hub import JOURNAL_EVENTS, Catalogue, Remembered
from anumate.faces.journal import Event, health_event
from anumate.faces.traffic import read_counters
from gateway.proxy.reports import COUNTERS, REPORTS, key_of_report
from health.models import Flip
from registry.live.node import get_current
from registry.models import Instance, Service

if TYPE_CHECKING:
    from registry.live.node import Node


class NodeSource:
    """Reads what the web process's node follows."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def catalogue(self) -> Catalogue:
        return self._node.catalog

    @property
    def stale_since(self) -> float | None:
        return self._node.catalog.stale_since

    def listen(self, callback: Callable[[set[tuple[str, str]]], None]) -> None:
        self._node.catalog.listen(callback)

    async def poll(self) -> Poll:
        redis: Any = self._node.redis  # redis-py's types do not know that our clients answer bytes
        counters = await redis.hgetall(COUNTERS)
        workers = [member.decode() for member in await redis.zrange(REPORTS, 0, -1)]
        reports = await redis.mget(map(key_of_report, workers)) if workers else []
        return Poll(read_counters(counters), merge_reports(zip(workers, reports, strict=True)))

    async def remember(self, tenant: str) -> Remembered:
        remembered: Remembered = await database_sync_to_async(remember)(tenant)
        return remembered


def remember(tenant: str) -> Remembered:
    """The tenant's services and the latest lines of its journal, from the database."""
    services = Service.objects.filter(tenant__name=tenant).values_list("name", flat=True)
    return Remembered(tuple(services), tuple(_past(tenant)))


def _past(tenant: str) -> Iterator[Event]:
    for flip in Flip.objects.filter(tenant__name=tenant)[:JOURNAL_EVENTS]:
        yield health_event(flip.at.timestamp(), flip.service, flip.instance_id, flip.new, flip.sentence)
    instances = Instance.objects.filter(service__tenant__name=tenant).select_related("service")
    for each in instances.order_by("-registered_at")[:JOURNAL_EVENTS]:
        yield Event(each.registered_at.timestamp(), "info", "joined", each.service.name, each.instance_id)
    for each in instances.exclude(gone_at=None).order_by("-gone_at")[:JOURNAL_EVENTS]:
        if each.gone_at:
            yield Event(each.gone_at.timestamp(), "mute", "left", each.service.name, each.instance_id)


_current: tuple[Node, Broadcaster] | None = None


def broadcaster() -> Broadcaster | None:
    """This process's broadcaster; None while the process does not follow the live state."""
    global _current
    node = get_current()
    if node is None:
        return None
    if _current is None or _current[0] is not node:
        _current = (node, Broadcaster(NodeSource(node)))
    return _current[1]
