from __future__ import annotations

import time

import pytest
import redis

from registry.live.instances import Document, Key
from registry.live.store import SyncStore
from registry.models import AuditEntry
from registry.selectors import catalog
from tests.api import api, code, pointers
from tests.registry.live.test_leases import awake

DOCUMENT = Document(lease_ttl=30)


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    """Twenty instances of `orders` and one of `stock`, that all lapsed a moment ago."""
    known, now = SyncStore(store), time.time()
    awake(store, now - 60)
    for key in [*(Key("default", "orders", f"o-{number:02}") for number in range(20)), Key("default", "stock", "s")]:
        known.register(key, DOCUMENT, now=now - 60)
    awake(store, now)
    known.sweep(now=now)
    return known


@pytest.mark.django_db
class TestHeld:
    def test_who_is_held_is_listed_with_the_sentence_why(self, live: SyncStore) -> None:
        answer = api(scopes=("registry:read",)).get("/v1/leases/held")
        held = answer.json()["held"]
        assert (answer.status_code, len(held)) == (200, 17)
        assert {item["name"] for item in held} == {"orders", "stock"}
        assert held[0]["since"] < held[0]["until"]
        assert held[0]["sentence"].startswith("More than 15 %")

    def test_a_held_instance_still_gets_traffic(self, live: SyncStore) -> None:
        instance = catalog().get(Key("default", "stock", "s"))
        assert instance is not None
        assert instance.eligible(time.time())

    def test_a_release_ends_them_at_the_next_sweep_and_is_audited(self, live: SyncStore) -> None:
        body = {"service_name": "orders", "reason": "the rack is gone"}
        answer = api(scopes=("registry:write",)).post("/v1/leases/held/release", body)
        assert (answer.status_code, answer.json()) == (200, {"released": 16})
        entry = AuditEntry.objects.get(action="released")
        assert (entry.reason, entry.after) == ("the rack is gone", {"service": "orders", "instances": 16})
        live.stamp()
        assert len(live.sweep()) == 16
        assert [item["name"] for item in api().get("/v1/leases/held").json()["held"]] == ["stock"]

    def test_where_nothing_is_held_nothing_is_audited(self, store: redis.Redis) -> None:
        assert api().post("/v1/leases/held/release", {}).json() == {"released": 0}
        assert not AuditEntry.objects.filter(action="released").exists()

    def test_it_needs_the_right_to_write_and_a_body_that_it_knows(self, store: redis.Redis) -> None:
        assert code(api(scopes=("registry:read",)).post("/v1/leases/held/release", {})) == (403, "scope_missing")
        assert pointers(api().post("/v1/leases/held/release", {"all": True})) == ["/all"]
