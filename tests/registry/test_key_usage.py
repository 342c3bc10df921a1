"""When a key was last used reaches its row, in batches, and never goes back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis
import redis.asyncio as aioredis

from registry.live.keys import KeyRecord, KeyRing, TenantRecord, make, secret_hash
from registry.live.usage import KEY, Usage
from registry.models import ApiKey, AuditEntry, Revision
from registry.services.keys import note_usage
from tests.api import api

pytestmark = pytest.mark.django_db


def test_a_ring_remembers_whom_it_let_in_and_nobody_else() -> None:
    public_id, key = make()
    ring = KeyRing("pepper", key_required=False)
    ring.replace([KeyRecord(public_id, "k", "default", secret_hash("pepper", key))], [TenantRecord("default")])
    ring.verify(key, 5.0)
    ring.verify(key, 7.0)
    ring.verify(None, 8.0)
    with pytest.raises(Exception, match="not known"):
        ring.verify(make()[1], 9.0)
    assert {id: at for id, at in ring.usage.seen.items() if id} == {public_id: 7.0}


async def test_what_was_seen_is_told_once_and_kept_while_redis_is_away(async_store: aioredis.Redis) -> None:
    usage = Usage()
    usage.seen = {"a": 5.0, "": 6.0}
    away = aioredis.Redis(port=1)
    await usage.tell(away)
    await away.aclose()
    usage.seen["b"] = 7.0
    await usage.tell(async_store)
    assert usage.seen == {}
    assert await async_store.zrange(KEY, 0, -1, withscores=True) == [(b"a", 5.0), (b"b", 7.0)]
    usage.seen = {"a": 4.0}
    await usage.tell(async_store)
    assert await async_store.zscore(KEY, "a") == 5.0


def test_rows_learn_it_without_an_edit(store: redis.Redis) -> None:
    made = api().post("/v1/api-keys", {"name": "k", "scopes": ["gateway:invoke"]}).json()
    entries, revision = AuditEntry.objects.count(), Revision.objects.get().number
    store.zadd(KEY, {made["public_id"]: 1_800_000_000.0, "nobody": 1_800_000_001.0})
    assert note_usage(store) == 1
    assert (AuditEntry.objects.count(), Revision.objects.get().number) == (entries, revision)
    row = ApiKey.objects.get(public_id=made["public_id"])
    assert row.last_used_at == datetime.fromtimestamp(1_800_000_000, tz=UTC)
    assert not store.exists(KEY)
    store.zadd(KEY, {made["public_id"]: 1_700_000_000.0})
    assert note_usage(store) == 0
    assert api().get(f"/v1/api-keys/{made['public_id']}").json()["last_used_at"].startswith("2027-01-15T")
