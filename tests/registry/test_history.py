"""What happened to instances: each event once, whatever stops in between, and one timeline of them all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from health.models import Flip
from registry.live.instances import Document, Fact, Key
from registry.live.store import SyncStore, ops
from registry.models import Instance, InstanceEvent, Service
from registry.services import history, projection
from registry.services.projection import project
from registry.tasks import prune
from tests.api import api, code, tenant
from tests.registry.live.test_leases import T0, awake

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


class TestAWordThatEndsByItself:
    def say(self, path: str, seconds: float = 600.0, state: str = "draining") -> datetime:
        """Until when."""
        ends = timezone.now() + timedelta(seconds=seconds)
        body = {"state": state, "reason": "new disk", "expires_at": ends.isoformat()}
        assert api().post(f"/v1/{path}/state", body).status_code == 200
        return ends

    def ends(self) -> list[InstanceEvent]:
        return list(InstanceEvent.objects.filter(kind="state_ended").order_by("service", "instance_id"))

    def test_it_is_told_once_and_not_before(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        ends = self.say("services/orders/a")
        project(live.redis, now=ends - timedelta(seconds=1))
        assert self.ends() == []
        for seconds in (0, 1, 3600):
            restarted()
            project(live.redis, now=ends + timedelta(seconds=seconds))
        [told] = self.ends()
        assert (told.instance_id, told.at, told.details["reason"]) == ("a", ends, "new disk")
        sentence = entries("orders/a")[0]["sentence"]
        assert sentence.startswith("It is no longer set to draining by test key")
        assert sentence.endswith("whose word ended by itself: new disk")

    def test_of_a_service_it_is_told_once_and_of_a_zone_once_for_each_service(self, live: SyncStore) -> None:
        live.register(A, ONE)
        live.register(B, ONE)
        live.register(Key("default", "web", "a"), ONE)
        project(live.redis)
        self.say("services/orders")
        last = self.say("zones/eu")
        project(live.redis, now=last)
        assert [(each.service, each.instance_id, "zone" in each.details) for each in self.ends()] == [
            ("orders", "", False),
            ("orders", "", True),
            ("web", "", True),
        ]

    def test_a_word_that_was_replaced_or_undone_has_not_ended_by_itself(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        ends = self.say("services/orders/a")
        self.say("services/orders")
        for path in ("orders/a", "orders"):
            assert api().post(f"/v1/services/{path}/state/undo", {}).status_code == 200
        project(live.redis, now=ends + timedelta(hours=1))
        assert self.ends() == []

    def test_an_operator_who_speaks_before_anybody_looked_hides_no_end(self, live: SyncStore) -> None:
        live.register(A, ONE)
        project(live.redis)
        self.say("services/orders/a")
        ended = timezone.now() - timedelta(seconds=5)
        Instance.objects.update(state_expires_at=ended, state_ending_at=ended)
        later = self.say("services/orders/a", state="maintenance")
        assert [each.at for each in self.ends()] == [ended]
        project(live.redis, now=later)
        assert [each.at for each in self.ends()] == [ended, later]

    def test_stopped_before_it_is_written_it_is_told_by_the_next_step(
        self, live: SyncStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live.register(A, ONE)
        project(live.redis)
        ends = self.say("services/orders/a")

        def fails(*_: Any) -> Any:
            raise InterruptedError

        with monkeypatch.context() as patch:
            patch.setattr(history, "record", fails)
            with pytest.raises(InterruptedError):
                project(live.redis, now=ends)
        project(live.redis, now=ends)
        project(live.redis, now=ends)
        assert len(self.ends()) == 1


class TestAHeldLease:
    NAMES = tuple(f"i{number:02}" for number in range(20))

    @pytest.fixture
    def held(self, live: SyncStore) -> SyncStore:
        """Twenty leases lapse at once; three end, and the others are held."""
        awake(live.redis, T0)
        for name in self.NAMES:
            live.register(Key("default", "orders", name), ONE, now=T0)
        project(live.redis)
        awake(live.redis, T0 + ONE.lease_ttl)
        live.sweep(now=T0 + ONE.lease_ttl)
        project(live.redis)
        return live

    def of(self, kind: str) -> set[str]:
        found = list(InstanceEvent.objects.filter(kind=kind).values_list("instance_id", flat=True))
        assert len(found) == len(set(found))
        return set(found)

    def test_it_is_told_when_it_begins_and_when_it_is_renewed(self, held: SyncStore) -> None:
        assert len(self.of("held")) == 17
        assert self.of("held_ended") == set()
        last = max(self.of("held"))
        held.heartbeat(Key("default", "orders", last), now=T0 + 40)
        for _ in range(2):
            project(held.redis)
            restarted()
        assert self.of("held_ended") == {last}
        told = {each["kind"]: each["sentence"] for each in entries(f"orders/{last}")}
        assert told["held_ended"] == "Its lease is held no longer: it renewed it"

    def test_it_is_told_once_when_it_is_let_go(self, held: SyncStore) -> None:
        held.release("default", now=T0 + 40)
        awake(held.redis, T0 + 40)
        held.sweep(now=T0 + 40)
        for _ in range(2):
            project(held.redis)
            restarted()
        assert self.of("held_ended") == self.of("held")
        assert self.of("left") == set(self.NAMES)
        name = max(self.of("held"))
        assert kinds(name) == ["joined", "held", "held_ended", "left"]


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
