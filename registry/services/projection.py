"""The instances' live state, written into rows, so that people can list, search and keep what has gone.

It follows the change stream from a remembered place. The stream says only whose turn it is: what is written is what the
store says of that instance now, so a change that is seen twice, or late, does no harm.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast

import redis
from django.db import transaction
from django.utils import timezone

from registry.live import instances as live
from registry.live import ops
from registry.live.instances import Key
from registry.live.ops import Index, Known
from registry.live.store import SyncStore
from registry.models import Instance, Service, Tenant, Zone
from registry.services import history
from registry.services.endings import tell_ended

PLACE: Final = ops.PREFIX + "projected"
TURN: Final = ops.PREFIX + "projecting"
TURN_MS: Final = 30_000
FULL_EVERY_SECONDS: Final = 60.0
# A wiped store fills again as instances come back; rows of those that have not yet are not called gone before.
GRACE_SECONDS: Final = 90.0
CHUNK: Final = 500

_WRITTEN: Final = (
    "version",
    "endpoints",
    "capabilities",
    "tags",
    "metadata",
    "zone",
    "weight",
    "live",
    "held_since",
    "health",
    "health_sentence",
    "registered_at",
    "gone_at",
)

_last_full = float("-inf")


def project(client: redis.Redis, *, now: datetime | None = None) -> int:
    """Bring the rows up to the live state; answers how many were written. Everything at start and each minute.

    Besides, tell in the history of the words that have ended by `now` (for tests; else it is now).
    """
    global _last_full
    with _turn(client) as ours:
        if not ours:
            return 0
        tell_ended(now or timezone.now())
        store = SyncStore(client)
        started = time.monotonic()
        news = _news(client, store)
        if news is None or started - _last_full >= FULL_EVERY_SECONDS:
            written, place = _project_all(store, news[1] if news else ())
            _last_full = started
        else:
            keys, went, place = news
            written = _write(store.read(keys), went)
        client.set(PLACE, str(place))
        return written


def _news(client: redis.Redis, store: SyncStore) -> tuple[list[Key], set[Key], Index] | None:
    """Whose state changed since the remembered place, and who left; None when the stream no longer joins on to it."""
    place, epoch, seq = cast("list[bytes | None]", client.mget(PLACE, ops.EPOCH, ops.SEQ))
    if place is None or epoch is None or (known := Index.parse(place.decode())).epoch != epoch.decode():
        return None
    changes = store.changes(after=known.seq)
    if not changes:
        return ([], set(), known) if int(seq or 0) == known.seq else None
    if changes[0].seq != known.seq + 1:
        return None
    went = {change.key for change in changes if change.op == "gone"}
    return list(dict.fromkeys(change.key for change in changes)), went, Index(known.epoch, changes[-1].seq)


def _project_all(store: SyncStore, went: Collection[Key]) -> tuple[int, Index]:
    snapshot = store.snapshot()
    written = _write(snapshot.known, went)
    if store.back_for() >= GRACE_SECONDS:
        written += _end_absent(snapshot.known)
    return written, snapshot.index


def _end_absent(known: Mapping[Key, Known]) -> int:
    rows = Instance.objects.filter(live=True).values_list("pk", "service__tenant__name", "service__name", "instance_id")
    gone = [
        pk
        for pk, tenant, service, name in rows.iterator(CHUNK)
        if (held := known.get(Key(tenant, service, name))) is None or held.document is None
    ]
    for start in range(0, len(gone), CHUNK):
        with transaction.atomic():
            now = timezone.now()
            ended = Instance.objects.filter(pk__in=gone[start : start + CHUNK], live=True)
            locked = ended.select_related("service").select_for_update(of=("self",))
            history.record([event for row in locked for event in history.left(row, now)])
            ended.update(live=False, gone_at=now, held_since=None)
    return len(gone)


def _write(known: Mapping[Key, Known], went: Collection[Key]) -> int:
    """`went`: who left in between, be it that they are back."""
    keys = [key for key in known if key.id and key.service]
    return sum(_write_chunk({key: known[key] for key in keys[i : i + CHUNK]}, went) for i in range(0, len(keys), CHUNK))


def _write_chunk(known: Mapping[Key, Known], went: Collection[Key]) -> int:
    with transaction.atomic():
        services = _services(known)
        rows = _rows(known, services)
        new = [
            Instance(service=service, instance_id=key.id, **_values(key, held))
            for key, held in known.items()
            if held.document and key not in rows and (service := services.get((key.tenant, key.service)))
        ]
        events = [event for row in new for event in history.joined(row)]
        changed = []
        for key, row in rows.items():
            values = _values(key, known[key])
            events += history.differences(row, values, went=key in went)
            if _update(row, values):
                changed.append(row)
        # Setting the state of an instance may make its row at this moment; then the next full turn fills it in.
        Instance.objects.bulk_create(new, ignore_conflicts=True)
        Instance.objects.bulk_update(changed, _WRITTEN, batch_size=100)
        history.record(events)
        zones = {(row.service.tenant_id, row.zone) for row in (*new, *changed) if row.zone}
        Zone.objects.bulk_create([Zone(tenant_id=t, name=zone) for t, zone in sorted(zones)], ignore_conflicts=True)
    return len(new) + len(changed)


def _update(row: Instance, values: Mapping[str, Any]) -> bool:
    """Whether the row was another before."""
    if not (values["live"] or row.live):
        return False
    changed = any(getattr(row, name) != value for name, value in values.items())
    for name, value in values.items():
        setattr(row, name, value)
    return changed


def _services(known: Mapping[Key, Known]) -> dict[tuple[str, str], Service]:
    """The rows of the services named, made where they are missing. Tenants that are not active are passed over."""
    tenants = {tenant.name: tenant for tenant in Tenant.objects.filter(active=True, name__in={k.tenant for k in known})}
    wanted = {(k.tenant, k.service) for k, held in known.items() if k.tenant in tenants and held.document is not None}
    found = _find_services(known)
    missing = [Service(tenant=tenants[tenant], name=name) for tenant, name in sorted(wanted - found.keys())]
    if missing:
        Service.objects.bulk_create(missing, ignore_conflicts=True)
        found = _find_services(known)
    return found


def _find_services(known: Mapping[Key, Known]) -> dict[tuple[str, str], Service]:
    rows = Service.objects.filter(
        tenant__active=True, tenant__name__in={key.tenant for key in known}, name__in={key.service for key in known}
    )
    return {(row.tenant.name, row.name): row for row in rows.select_related("tenant")}


def _rows(known: Mapping[Key, Known], services: Mapping[tuple[str, str], Service]) -> dict[Key, Instance]:
    names = {service.pk: pair for pair, service in services.items()}
    rows = Instance.objects.select_related("service").filter(
        service__in=names, instance_id__in={key.id for key in known}
    )
    found = {Key(*names[row.service_id], row.instance_id): row for row in rows}
    return {key: row for key, row in found.items() if key in known}


def _values(key: Key, held: Known) -> dict[str, Any]:
    document = held.document
    if document is None:
        return {"live": False, "gone_at": timezone.now(), "held_since": None}
    instance = live.Instance(key, document, held.registered_at, held.facts)
    return {
        "version": document.version,
        "endpoints": {
            name: {"protocol": each.protocol, "host": each.host, "port": each.port}
            for name, each in document.endpoints.items()
        },
        "capabilities": list(document.capabilities),
        "tags": list(document.tags),
        "metadata": document.metadata,
        "zone": document.zone,
        "weight": document.weight,
        "live": True,
        "held_since": _moment(held.facts["held"].since) if "held" in held.facts else None,
        "health": instance.health,
        "health_sentence": _sentence(instance)[:500],
        "registered_at": _moment(held.registered_at),
        "gone_at": None,
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _sentence(instance: live.Instance) -> str:
    """What the one said that decided about its health."""
    said = (instance.facts.get(kind) for kind in ("probe", "reported"))
    return next((fact.sentence for fact in said if fact and fact.value == instance.health), "")


@contextmanager
def _turn(client: redis.Redis) -> Iterator[bool]:
    """One worker writes at a time; whoever comes meanwhile has nothing to do. A killed worker's turn ends by itself."""
    token = secrets.token_hex(8)
    ours = bool(client.set(TURN, token, nx=True, px=TURN_MS))
    try:
        yield ours
    finally:
        if ours and client.get(TURN) == token.encode():
            client.delete(TURN)
