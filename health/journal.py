"""Rows from what health keeps in Redis, and checks from rows. Runs beside the checks, never in their way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import msgspec
import redis
from django.db import DatabaseError, connections
from django.db.models import Model, QuerySet

from anumate.lib.redis import UNAVAILABLE
from health.models import Flip, ResultRollup
from health.roster import Configured
from health.schedule import FLIPS, MINUTES, PREFIX, FlipRecord
from health.selectors import configured_checks
from registry.live.instances import Key
from registry.models import Revision, Tenant

logger = logging.getLogger(__name__)

PAGE: Final = 500
ROLLUPS_KEPT: Final = timedelta(days=3)
FLIPS_KEPT: Final = timedelta(days=90)
PRUNED_AT_ONCE: Final = 5_000
LATE: Final = 5.0
"""Seconds after its end that a minute is summed up; by then every result of it is in."""

_flip = msgspec.json.Decoder(FlipRecord)


class Clerk:
    """Keeps checks and rows in step, a little each time it is called. One call at a time."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self.configured: Configured | None = None
        """The checks that people configured; None before the database was first heard."""
        self._revision = -1
        self._pruned = 0.0

    def work(self) -> None:
        """Never raises for a database or a store that is away: there is a next time."""
        try:
            self._work(time.time())
        except (DatabaseError, *UNAVAILABLE) as error:
            logger.warning("health's rows have to wait: %s", str(error).splitlines()[0])
        finally:
            # The thread that runs this is not one that Django would tidy up after.
            connections.close_all()

    def _work(self, now: float) -> None:
        current = revision()
        if current != self._revision:
            self.configured, self._revision = configured_checks(), current
        while write_flips(self.redis):
            pass
        write_rollups(self.redis, now)
        if now - self._pruned > 60:
            prune(now)
            self._pruned = now


def revision() -> int:
    """Changes whenever somebody edits anything; cheap enough to ask each second."""
    return Revision.objects.values_list("number", flat=True).filter(pk=1).first() or 0


def write_flips(client: redis.Redis) -> int:
    """Rows for the flips that wait in Redis; answers how many there were."""
    raw = cast("list[bytes]", client.lrange(FLIPS, 0, PAGE - 1))
    if not raw:
        return 0
    flips = [_flip.decode(each) for each in raw]
    tenants = _tenants(flip.key.tenant for flip in flips)
    Flip.objects.bulk_create(
        Flip(
            tenant_id=tenants[flip.key.tenant],
            service=flip.key.service,
            instance_id=flip.key.id,
            old=flip.old,
            new=flip.new,
            sentence=flip.sentence[:500],
            at=datetime.fromtimestamp(flip.at, UTC),
        )
        for flip in flips
        if flip.key.tenant in tenants
    )
    client.ltrim(FLIPS, len(raw), -1)
    return len(raw)


def write_rollups(client: redis.Redis, now: float) -> None:
    """Rows for the minutes that are over. The sums are whole, so that writing them twice changes nothing."""
    for raw in cast("set[bytes]", client.smembers(MINUTES)):
        minute = int(raw)
        if minute + 60 + LATE > now:
            continue
        sums = f"{PREFIX}roll:{minute}"
        _write_minute(minute, cast("dict[bytes, bytes]", client.hgetall(sums)))
        client.delete(sums)
        client.srem(MINUTES, raw)


def _write_minute(minute: int, sums: dict[bytes, bytes]) -> None:
    keyed = {Key.parse(raw.decode()): values.split() for raw, values in sums.items()}
    tenants = _tenants(key.tenant for key in keyed)
    ResultRollup.objects.bulk_create(
        (
            ResultRollup(
                tenant_id=tenants[key.tenant],
                service=key.service,
                instance_id=key.id,
                minute=datetime.fromtimestamp(minute, UTC),
                passed=int(passed),
                failed=int(failed),
                latency_sum=float(latency_sum),
                latency_max=float(latency_max),
            )
            for key, (passed, failed, latency_sum, latency_max) in keyed.items()
            if key.tenant in tenants
        ),
        batch_size=PAGE,
        update_conflicts=True,
        unique_fields=["tenant", "service", "instance_id", "minute"],
        update_fields=["passed", "failed", "latency_sum", "latency_max"],
    )


def prune(now: float) -> None:
    """Forget what is older than we keep, a bounded number of rows at a time."""
    today = datetime.fromtimestamp(now, UTC)
    _forget(ResultRollup.objects.filter(minute__lt=today - ROLLUPS_KEPT).order_by("minute"))
    _forget(Flip.objects.filter(at__lt=today - FLIPS_KEPT).order_by("at"))


def _forget(old: QuerySet[Model]) -> None:
    model = old.model
    model._default_manager.filter(pk__in=list(old.values_list("pk", flat=True)[:PRUNED_AT_ONCE])).delete()


def _tenants(names: Iterable[str]) -> dict[str, int]:
    return dict(Tenant.objects.filter(name__in=set(names)).values_list("name", "pk"))
