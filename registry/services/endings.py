"""Operators' words that end by themselves: the history tells of each end, once."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import models, transaction

from registry.models import Instance, Service, Zone
from registry.services import history
from registry.services.states import Target

AT_ONCE: Final = 500


def tell_ended(now: datetime) -> int:
    """Write an event of each word that has ended by `now` and is not told of yet; answers how many words."""
    rows: tuple[models.QuerySet[Instance | Service | Zone], ...] = (
        Instance.objects.select_related("service"),
        Service.objects.all(),
        Zone.objects.all(),
    )
    return sum(_tell(each.filter(state_ending_at__lte=now)) for each in rows)


def _tell(ended: models.QuerySet[Instance | Service | Zone]) -> int:
    if not ended.exists():  # nearly always; a transaction would keep other writers of SQLite waiting
        return 0
    with transaction.atomic():
        rows: list[Target] = list(ended.select_for_update(of=("self",)).order_by("pk")[:AT_ONCE])
        history.record(event for row in rows for event in history.ended(row))
        ended.model._base_manager.filter(pk__in=[row.pk for row in rows]).update(state_ending_at=None)
    return len(rows)
