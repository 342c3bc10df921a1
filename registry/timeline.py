"""What happened to a service or an instance, newest first, out of every journal that tells of it.

Joinings, leavings, versions and operators' words are kept here; other apps add theirs (health: flips) by `provide`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from django.db import models

from registry.models import InstanceEvent, Tenant


class Entry(NamedTuple):
    at: datetime
    kind: str
    instance_id: str
    sentence: str
    version: str = ""
    details: dict[str, Any] = {}


class Journal(NamedTuple):
    """Rows, newest first, and how one is told."""

    rows: models.QuerySet[Any]
    tell: Callable[[Any], Entry]


Source = Callable[[Tenant, str, str], Journal]
"""From tenant, service and instance id; an empty id is the whole service."""

_sources: list[Source] = []


def provide(source: Source) -> None:
    """Have the rows of `source` stand in every timeline."""
    if source not in _sources:
        _sources.append(source)


class Timeline:
    """A page of it costs what lies before it too: everything newer is read and merged."""

    def __init__(self, tenant: Tenant, service: str, instance_id: str = "") -> None:
        self._journals = [source(tenant, service, instance_id) for source in (_own, *_sources)]

    def count(self) -> int:
        return sum(journal.rows.count() for journal in self._journals)

    __len__ = count

    def __getitem__(self, page: slice) -> list[Entry]:
        told = [_read(journal, page.stop) for journal in self._journals]
        merged = heapq.merge(*told, key=lambda entry: entry.at, reverse=True)
        return list(islice(merged, page.start, page.stop))


def _read(journal: Journal, most: int | None) -> Iterator[Entry]:
    return map(journal.tell, journal.rows[:most])


def _own(tenant: Tenant, service: str, instance_id: str) -> Journal:
    rows = InstanceEvent.objects.filter(tenant=tenant, service=service)
    if instance_id:
        rows = rows.filter(instance_id__in=("", instance_id))
    return Journal(rows.order_by("-at", "-pk"), _tell)


def _tell(event: InstanceEvent) -> Entry:
    return Entry(event.at, event.kind, event.instance_id, _sentence(event), event.version, event.details)


def _sentence(event: InstanceEvent) -> str:
    told = event.details
    if event.kind == InstanceEvent.Kind.JOINED:
        return "It joined" + (f" with version {event.version}" if event.version else "")
    if event.kind == InstanceEvent.Kind.LEFT:
        return "It left: it deregistered, or its heartbeats stopped"
    if event.kind == InstanceEvent.Kind.VERSION_CHANGED:
        return f"Its version went from {told.get('from')} to {told.get('to') or 'none'}"
    if event.kind == InstanceEvent.Kind.HELD:
        return "Its lease lapsed together with many others, so it is held"
    if event.kind == InstanceEvent.Kind.HELD_ENDED:
        renewed = "it renewed it" if told.get("renewed") else "it left, or nobody renewed it in time"
        return f"Its lease is held no longer: {renewed}"
    whom = f"The zone {told['zone']}" if "zone" in told else "It" if event.instance_id else "The service"
    weight = f" with weight {told['weight']}" if told.get("weight") is not None else ""
    reason = f": {told['reason']}" if told.get("reason") else ""
    word = f"set to {told.get('state')}{weight} by {told.get('actor')}"
    if event.kind == InstanceEvent.Kind.STATE_ENDED:
        return f"{whom} is no longer {word}, whose word ended by itself{reason}"
    return f"{whom} was {word}{reason}"
