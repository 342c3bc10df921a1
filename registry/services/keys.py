"""API keys: made once, shown once, revoked for good."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis
from django.conf import settings
from django.utils import timezone

from registry.live import keys as live
from registry.live.usage import KEY as KEY_USED
from registry.models import ApiKey, Tenant
from registry.services.changes import Actor, change


class NewKey(NamedTuple):
    """A key that was just made. `secret` is the whole text to present; nobody can read it later."""

    row: ApiKey
    secret: str


def may_grant(tenant: Tenant, scopes: Iterable[str], *, platform: bool) -> bool:
    """Whether a key of this tenant may be given these scopes: `admin` in `default` rules the whole installation, so
    only who runs it hands that out."""
    return platform or tenant.name != live.DEFAULT_TENANT or "admin" not in scopes


def create_key(
    actor: Actor,
    tenant: Tenant,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    secret: str | None = None,
    routes: Iterable[str] = (),
    networks: Iterable[str] = (),
    rate_limit_policy: str = "",
) -> NewKey:
    """Make a key, limited as `KeyRecord` tells. `secret` hands in a well-formed key instead of a random one (the first
    start does).

    Raises:
        ValueError: `secret` is not well-formed.
    """
    public_id, full = live.make() if secret is None else (_public_id(secret), secret)
    row = ApiKey(
        tenant=tenant,
        name=name,
        public_id=public_id,
        secret_hash=live.secret_hash(settings.API_KEY_PEPPER, full),
        scopes=list(dict.fromkeys(scopes)),
        routes=list(dict.fromkeys(routes)),
        networks=list(dict.fromkeys(networks)),
        rate_limit_policy=rate_limit_policy,
        expires_at=expires_at,
    )
    with change(actor, "created", row):
        row.save()
    return NewKey(row, full)


def revoke_key(actor: Actor, key: ApiKey, *, reason: str = "") -> bool:
    """End a key for good. False when it had been revoked before."""
    if key.revoked_at is not None:
        return False
    with change(actor, "revoked", key, reason=reason):
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
    return True


def record_of(row: ApiKey) -> live.KeyRecord:
    """The key as every process knows it. Asks for the tenant, where that is not selected with the row."""
    return live.KeyRecord(
        id=row.public_id,
        name=row.name,
        tenant=row.tenant.name,
        hash=row.secret_hash,
        scopes=tuple(row.scopes),
        expires_at=row.expires_at.timestamp() if row.expires_at else 0.0,
        routes=tuple(row.routes),
        networks=tuple(row.networks),
        rate_limit_policy=row.rate_limit_policy,
    )


def _public_id(secret: str) -> str:
    if not live.well_formed(secret):
        raise ValueError("An API key looks like anm_<10 characters>_<32 characters>_<6-character checksum>.")
    return secret.split("_")[1]


def note_usage(client: redis.Redis) -> int:
    """Write when keys were last used, as all processes told it, in one go; how many rows that changed.

    It is no edit: nobody made it, and nothing is published for it.
    """
    told: Any = client.zrange(KEY_USED, 0, -1, withscores=True)
    if not told:
        return 0
    latest = {public_id.decode(): seconds for public_id, seconds in told}
    changed = []
    for row in ApiKey.objects.filter(public_id__in=latest):
        used = datetime.fromtimestamp(latest[row.public_id], tz=UTC)
        if row.last_used_at is None or row.last_used_at < used:
            row.last_used_at = used
            changed.append(row)
    ApiKey.objects.bulk_update(changed, ["last_used_at"], batch_size=500)
    client.zremrangebyscore(KEY_USED, "-inf", max(latest.values()))
    return len(changed)
