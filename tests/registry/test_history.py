"""What happened to instances: each event once, whatever stops in between, and one timeline of them all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from health.models import Flip
from registry.live.instances import Document, Fact, Key
from registry.live.store import SyncStore, ops
from registry.models import InstanceEvent, Service
from registry.services import history, projection
from registry.services.projection import project
from registry.tasks import prune
from tests.api import api, code, tenant

pytestmark = pytest.mark.django_db
A, B = Key("default", "orders", "a"), Key("default", "orders", "b")
ONE, TWO = Document(version="1.0", zone="eu"), Document(version="2.0", zone="eu")


def restarted() -> None:
    """As in a process that has just begun."""
    projection._last_full = float("-inf")


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    tenant()
    restarted()
    return SyncStore(store)


def kinds(name: str = "a") -> list[str]:
    return list(InstanceEvent.objects.filter(instance_id=name).order_by("pk").values_list("kind", flat=True))


def entries(path: str = "orders", of: str = "default", **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api(of).get(f"/v1/services/{path}/history", query).json()["results"]
    return found


class TestTheProjection:
    def test_joining_a_new_version_and_leaving_are_events(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        live.register(A, TWO)
        project(live.redis)
        live.deregister(A)
        project(live.redis)
        assert kinds() == ["joined", "version_changed", "left"]
        changed = InstanceEvent.objects.get(kind="version_changed")
        assert (changed.version, changed.details) == ("2.0", {"from": "1.0", "to": "2.0"})

    def test_heartbeats_and_verdicts_are_none(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        live.heartbeat(A)
        live.put_fact(A, "probe", Fact("unhealthy", "It answers 500."))
        project(live.redis)
        assert kinds() == ["joined"]

    def test_who_leaves_and_comes_back_between_two_steps_is_told_to_have_done_both(self, live: SyncStore) -> None:
        live.register(A, ONE, now=1_000.0)
        project(live.redis)
        live.deregister(A)
        live.register(A, TWO, now=2_000.0)
        project(live.redis)
        assert kinds() == ["joined", "left", "joined", "version_changed"]

    def test_a_wiped_store_that_fills_again_is_no_leaving(self, live: SyncStore) -> None:
        live.register(A, ONE, now=1_000.0)
        project(live.redis)
        live.redis.flushall()
        live.register(A, ONE, now=2_000.0)
        project(live.redis)
        assert kinds() == ["joined"]

    def test_who_left_while_nobody_looked_is_found_out(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        live.stamp(now=1_000.0)
        live.sweep(now=1_000.0)
        live.redis.set(ops.PREFIX + "back", 0)
        for stamp in ("lane", "swept"):
            live.redis.set(ops.PREFIX + stamp, int(live.redis.time()[0]) * 1000)
        live.deregister(A)
        live.redis.delete(projection.PLACE)
        restarted()
        project(live.redis)
        assert kinds() == ["joined", "left"]

    @pytest.mark.parametrize("restart", [True, False])
    @pytest.mark.parametrize("stops", ["before the rows are written", "before the place is remembered"])
    def test_stopped_between_two_steps_it_tells_each_event_once(
        self, live: SyncStore, monkeypatch: pytest.MonkeyPatch, stops: str, restart: bool
    ) -> None:
        live.register(B, ONE, now=1_000.0)
        project(live.redis)
        live.register(A, ONE)
        live.deregister(B)
        live.register(B, TWO, now=2_000.0)

        def fails(*_: Any, **__: Any) -> Any:
            raise InterruptedError(stops)

        with monkeypatch.context() as patch:
            if stops.startswith("before the rows"):
                patch.setattr(history, "record", fails)
            else:
                patch.setattr(live.redis, "set", _all_but(projection.PLACE, live.redis.set, fails))
            with pytest.raises(InterruptedError):
                project(live.redis)
        live.redis.delete(projection.TURN)
        if restart:
            restarted()
        project(live.redis)
        project(live.redis)
        assert kinds("a") == ["joined"]
        assert kinds("b") == ["joined", "left", "joined", "version_changed"]

    def test_an_instance_that_operators_spoke_of_first_joins_once(self, live: SyncStore) -> None:
        live.register(A, ONE)
        api().post("/v1/services/orders/a/state", {"state": "draining", "reason": "disk"})
        project(live.redis)
        restarted()
        project(live.redis)
        assert sorted(kinds()) == ["joined", "state_changed"]


def _all_but(name: str, real: Any, fails: Any) -> Any:
    return lambda key, *args, **more: fails() if key == name else real(key, *args, **more)


class TestTheTimeline:
    def test_it_merges_what_every_journal_tells_newest_first_in_pages(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        api().post("/v1/services/orders/state", {"state": "draining", "reason": "new disk", "weight": 3})
        later = timezone.now() + timedelta(seconds=5)
        flip = {"old": "healthy", "new": "unhealthy", "sentence": "It answers 500."}
        Flip.objects.create(tenant=tenant(), service="orders", instance_id="a", at=later, **flip)
        told = entries()
        assert [each["kind"] for each in told] == ["flip", "state_changed", "joined"]
        assert told[0]["sentence"] == "It went from healthy to unhealthy: It answers 500."
        assert told[1]["sentence"].startswith("The service was set to draining with weight 3 by test key")
        assert told[1]["sentence"].endswith(": new disk")
        assert told[2]["sentence"] == "It joined with version 1.0"
        page = api().get("/v1/services/orders/history", {"page": 2, "page_size": 2}).json()
        assert (page["count"], [each["kind"] for each in page["results"]]) == (3, ["joined"])

    def test_an_instances_own_has_what_was_said_of_its_service_but_nothing_of_others(self, live: SyncStore) -> None:
        live.register(A, ONE)
        live.register(B, ONE)
        project(live.redis)
        api().post("/v1/zones/eu/state", {"state": "maintenance"})
        told = entries("orders/a")
        assert [(each["kind"], each["instance_id"]) for each in told] == [("state_changed", ""), ("joined", "a")]
        assert told[0]["sentence"].startswith("The zone eu was set to maintenance")

    def test_another_tenants_is_not_found(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        for path in ("orders", "orders/a"):
            assert code(api("acme").get(f"/v1/services/{path}/history")) == (404, "not_found")

    def test_the_pages_show_it(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        client = Client()
        client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
        service = Service.objects.get()
        for path in (f"service/{service.pk}", f"instance/{service.instances.get().pk}"):
            assert "It joined with version 1.0" in client.get(f"/admin/registry/{path}/change/").content.decode()


def test_what_is_older_than_90_days_is_forgotten() -> None:
    for days in (89, 91, 200):
        at = timezone.now() - timedelta(days=days)
        InstanceEvent.objects.create(tenant=tenant(), service="orders", instance_id="a", kind="joined", at=at)
    prune()
    assert InstanceEvent.objects.count() == 1
