from __future__ import annotations

import pytest
import redis

from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import SyncStore, ops
from registry.models import Instance, Service, Tenant
from registry.services import projection
from registry.services.projection import project
from registry.tasks import project as project_task
from registry.tasks import sweep

pytestmark = pytest.mark.django_db

A, B = Key("acme", "orders", "a"), Key("acme", "orders", "b")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "localhost", 8000)}, tags=("api",), zone="eu")


@pytest.fixture
def live(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> SyncStore:
    monkeypatch.setattr(projection, "_last_full", float("-inf"))
    Tenant.objects.create(name="acme")
    Tenant.objects.create(name="gone", active=False)
    return SyncStore(store)


def row(name: str = "a") -> Instance:
    return Instance.objects.get(service__name="orders", instance_id=name)


def looked_after(live: SyncStore) -> None:
    """As if lane and sweeper had been at work for long."""
    live.stamp(now=1_000.0)
    live.sweep(now=1_000.0)
    live.redis.set(ops.PREFIX + "back", 0)
    for stamp in ("lane", "swept"):
        live.redis.set(ops.PREFIX + stamp, int(live.redis.time()[0]) * 1000)


def test_a_live_instance_becomes_a_row_with_what_it_said(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    assert project(live.redis) == 1
    found = row()
    assert (found.version, found.zone, found.tags, found.live, found.health) == ("1.0", "eu", ["api"], True, "unknown")
    assert found.endpoints == {"http": {"protocol": "http", "host": "localhost", "port": 8000}}


def test_it_follows_changes_and_writes_only_what_is_another(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    live.register(B, DOCUMENT)
    project(live.redis)
    assert project(live.redis) == 0
    live.heartbeat(A)
    assert project(live.redis) == 0
    live.put_fact(A, "probe", Fact("unhealthy", "It answers 500."))
    assert project(live.redis) == 1
    assert (row().health, row().health_sentence) == ("unhealthy", "It answers 500.")
    live.deregister(A)
    assert project(live.redis) == 1
    assert not row().live
    assert row().gone_at is not None
    live.register(A, DOCUMENT)
    project(live.redis)
    assert row().live
    assert row().gone_at is None
    assert row().health == "unknown"


def test_what_an_operator_decided_is_not_touched(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    project(live.redis)
    Instance.objects.update(state="draining", state_reason="a new disk")
    live.register(A, Document(version="2.0"))
    project(live.redis)
    assert (row().version, row().state, row().state_reason) == ("2.0", "draining", "a new disk")


def test_tenants_that_are_unknown_or_not_active_are_passed_over(live: SyncStore) -> None:
    live.register(Key("gone", "orders", "a"), DOCUMENT)
    live.register(Key("nobody", "orders", "a"), DOCUMENT)
    assert project(live.redis) == 0
    assert not Service.objects.exists()


def test_a_full_turn_finds_what_was_missed(live: SyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    live.register(A, DOCUMENT)
    live.register(B, DOCUMENT)
    project(live.redis)
    looked_after(live)
    live.deregister(A)
    # A lost place is as good as a process that starts anew.
    live.redis.delete(projection.PLACE)
    project(live.redis)
    assert not row().live
    assert row("b").live


def test_a_gap_in_the_stream_leads_to_a_full_turn(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    project(live.redis)
    live.redis.incrby(ops.SEQ, 10)
    live.register(B, DOCUMENT)
    project(live.redis)
    assert row("b").live
    assert project(live.redis) == 0


def test_a_wiped_store_ends_no_rows_before_instances_could_come_back(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    live.register(B, DOCUMENT)
    project(live.redis)
    live.redis.flushall()
    live.register(B, DOCUMENT)
    project(live.redis)
    assert row().live
    live.stamp()
    sweep()
    live.redis.delete(projection.PLACE)
    project(live.redis)
    assert row().live


def test_while_one_worker_writes_another_has_nothing_to_do(live: SyncStore) -> None:
    live.register(A, DOCUMENT)
    live.redis.set(projection.TURN, "another", px=60_000)
    assert project(live.redis) == 0
    assert live.redis.get(projection.TURN) == b"another"
    live.redis.delete(projection.TURN)
    project_task()
    assert row().live
    assert live.redis.get(projection.TURN) is None


def test_many_instances_are_written_in_few_statements(live: SyncStore, django_assert_max_num_queries) -> None:
    for number in range(1_000):
        live.register(Key("acme", f"s{number % 20}", str(number)), DOCUMENT)
    with django_assert_max_num_queries(60):
        assert project(live.redis) == 1_000
    assert Instance.objects.filter(live=True).count() == 1_000
