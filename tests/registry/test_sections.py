from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
import redis
from django.db import connections
from django.utils import timezone

from anumate.lib import env
from registry.live.instances import Fact, Key
from registry.live.keys import KeySection, StateSection, TenantSection, make, secret_hash
from registry.live.node import Node
from registry.live.sections import SECTIONS
from registry.live.store import SyncStore
from registry.models import ApiKey, Instance, Service, Tenant, TenantHost
from registry.services.changes import SYSTEM, announce, change
from registry.services.sections import publish_sections
from registry.services.states import live_key, state_fact
from registry.tasks import republish
from tests.conftest import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant(store: redis.Redis) -> Tenant:
    return Tenant.objects.create(name="acme")


def body(store: redis.Redis, name: str) -> bytes:
    found = store.hget(SECTIONS, f"{name}:body")
    assert isinstance(found, bytes)
    return found


def test_tenants_with_their_hosts_keys_and_states_are_published(store: redis.Redis, tenant: Tenant) -> None:
    TenantHost.objects.create(tenant=tenant, host="*.acme.com")
    ApiKey.objects.create(tenant=tenant, name="app", public_id="0123456789", secret_hash="h", scopes=["admin"])
    service = Service.objects.create(tenant=tenant, name="orders")
    Instance.objects.create(
        service=service, instance_id="a", state="draining", state_reason="a new disk", state_since=timezone.now()
    )
    assert publish_sections() == ["tenants", "keys", "states"]
    assert publish_sections() == []
    (told,) = msgspec.json.decode(body(store, "tenants"), type=TenantSection).tenants
    assert (told.name, told.active, told.hosts) == ("acme", True, ("*.acme.com",))
    (key,) = msgspec.json.decode(body(store, "keys"), type=KeySection).keys
    assert (key.id, key.tenant, key.hash, key.scopes) == ("0123456789", "acme", "h", ("admin",))
    ((name, fact),) = msgspec.json.decode(body(store, "states"), type=StateSection).states.items()
    assert (name, fact.value) == (str(Key("acme", "orders", "a")), "draining")


def test_a_word_that_the_live_state_missed_reaches_it_with_an_index_when_the_sections_do(
    store: redis.Redis, tenant: Tenant
) -> None:
    now, live = timezone.now(), SyncStore(store)
    orders = Service.objects.create(tenant=tenant, name="orders", state="draining", state_since=now)
    Service.objects.create(tenant=tenant, name="stock", state="enabled", state_since=now)
    newer = Service.objects.create(tenant=tenant, name="newer", state="draining", state_since=now)
    live.put_fact(live_key(newer), "state", Fact("enabled", since=now.timestamp() + 60))
    before = live.members().index.seq
    publish_sections()
    (change,) = live.changes(before)
    assert (change.key, change.fact) == (live_key(orders), state_fact(orders))
    publish_sections()
    assert live.members().index.seq == before + 1


def test_keys_that_nobody_may_use_are_not_sent_out(store: redis.Redis, tenant: Tenant) -> None:
    gone = Tenant.objects.create(name="gone", active=False)
    now = timezone.now()
    for number, (owner, more) in enumerate(
        [
            (tenant, {}),
            (tenant, {"revoked_at": now}),
            (tenant, {"expires_at": now - timedelta(days=1)}),
            (tenant, {"expires_at": now - timedelta(days=31)}),
            (gone, {}),
        ]
    ):
        ApiKey.objects.create(tenant=owner, name=str(number), public_id=f"{number:010}", secret_hash="h", **more)
    publish_sections()
    keys = msgspec.json.decode(body(store, "keys"), type=KeySection).keys
    assert [key.name for key in keys] == ["0", "2"]


def test_an_edit_is_published_when_it_is_committed(
    store: redis.Redis, tenant: Tenant, django_capture_on_commit_callbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True), change(SYSTEM, "changed", tenant):
        tenant.active = False
        tenant.save()
    (told,) = msgspec.json.decode(body(store, "tenants"), type=TenantSection).tenants
    assert not told.active


def test_a_store_that_is_away_fails_no_edit_and_no_task(
    tenant: Tenant, settings, django_capture_on_commit_callbacks, caplog: pytest.LogCaptureFixture
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    with django_capture_on_commit_callbacks(execute=True), change(SYSTEM, "changed", tenant):
        tenant.title = "Acme"
        tenant.save()
    republish()
    assert Tenant.objects.get(name="acme").title == "Acme"
    assert [record.levelname for record in caplog.records if record.name.startswith("anumate.")].count("WARNING") >= 2


def test_a_wiped_store_is_filled_again_by_the_next_beat(store: redis.Redis, tenant: Tenant) -> None:
    publish_sections()
    store.flushall()
    republish()
    assert body(store, "tenants")


def test_a_change_of_another_app_reads_no_rows_of_ours(
    tenant: Tenant, django_capture_on_commit_callbacks, store: redis.Redis
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        announce("gateway.Somewhere")
    assert store.hget(SECTIONS, "keys:body") is None


@pytest.mark.django_db(transaction=True)
async def test_a_revoked_key_ends_everywhere_within_a_second(store: redis.Redis, redis_url: str) -> None:
    tenant = Tenant.objects.create(name="acme")
    public_id, full = make()
    row = ApiKey.objects.create(
        tenant=tenant, name="app", public_id=public_id, secret_hash=secret_hash("pepper", full), scopes=["admin"]
    )
    publish_sections()
    node = Node(env.read({"REDIS_URL": redis_url}), "pepper")
    await node.start()
    try:
        assert node.keys.verify(full, 0.0).name == "app"
        row.revoked_at = timezone.now()
        with change(SYSTEM, "revoked", row):
            row.save()

        def refused() -> bool:
            try:
                node.keys.verify(full, 0.0)
            except Exception:
                return True
            return False

        await eventually(refused, seconds=1.0)
    finally:
        await node.stop()
        connections.close_all()  # this loop's own; the fixtures know only the thread's
