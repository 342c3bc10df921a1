"""What operators say of instances, services and zones: who decides, when it ends, and how it is taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone

from registry.live.instances import Document, Endpoint, Fact, Instance, Key
from registry.live.store import SyncStore
from registry.models import AuditEntry, Zone
from registry.selectors import catalog
from registry.services.projection import project
from registry.services.sections import publish_sections
from tests.api import api, code, pointers

pytestmark = pytest.mark.django_db
KEY, OTHER = Key("default", "orders", "o-1"), Key("default", "mail", "m-1")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "10.0.0.1", 8000)}, zone="eu-1")
INSTANCE, SERVICE, ZONE = "/v1/services/orders/o-1/state", "/v1/services/orders/state", "/v1/zones/eu-1/state"


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    known = SyncStore(store)
    known.register(KEY, DOCUMENT)
    known.register(OTHER, DOCUMENT)
    return known


@pytest.fixture
def post(live: SyncStore, django_capture_on_commit_callbacks) -> Any:
    client = api()

    def send(path: str, **body: Any) -> Any:
        with django_capture_on_commit_callbacks(execute=True):
            return client.post(path, body)

    return send


def now() -> float:
    return timezone.now().timestamp()


def here(key: Key = KEY) -> Instance:
    found = catalog().get(key)
    assert found is not None
    return found


class TestWhoDecides:
    @pytest.mark.parametrize(
        ("facts", "state"),
        [
            ({"zone_state": Fact("draining")}, "draining"),
            ({"zone_state": Fact("draining"), "service_state": Fact("enabled")}, "enabled"),
            ({"service_state": Fact("draining"), "state": Fact("enabled")}, "enabled"),
            ({"service_state": Fact("draining"), "state": Fact("enabled", expires_at=5.0)}, "draining"),
            ({"zone_state": Fact("maintenance"), "state": Fact("draining")}, "draining"),
            ({}, "enabled"),
        ],
    )
    def test_the_nearest_word_in_force_decides(self, facts: dict[str, Fact], state: str) -> None:
        assert Instance(KEY, DOCUMENT, 0.0, facts).state(10.0) == state

    @pytest.mark.parametrize(
        ("facts", "weight"),
        [
            ({}, 100),
            ({"zone_state": Fact("enabled", weight=5)}, 5),
            ({"zone_state": Fact("enabled", weight=5), "state": Fact("enabled")}, 5),
            ({"zone_state": Fact("enabled", weight=5), "state": Fact("enabled", weight=0)}, 0),
            ({"state": Fact("enabled", weight=0, expires_at=9.0)}, 100),
        ],
    )
    def test_so_does_the_nearest_word_that_names_a_weight(self, facts: dict[str, Fact], weight: int) -> None:
        assert Instance(KEY, DOCUMENT, 0.0, facts).weight(10.0) == weight

    def test_an_instance_enabled_by_name_stays_while_its_service_drains(self, post) -> None:
        post(INSTANCE, state="enabled")
        post(SERVICE, state="draining")
        assert here().state(now()) == "enabled"
        post(INSTANCE + "/undo")
        assert here().state(now()) == "draining"


class TestZones:
    def test_a_zone_drains_with_everyone_in_it(self, post, live: SyncStore) -> None:
        live.register(Key("default", "orders", "o-2"), Document(zone="eu-2"))
        assert post(ZONE, state="draining", reason="power").json()["state"] == "draining"
        assert [here(key).state(now()) for key in (KEY, OTHER)] == ["draining", "draining"]
        assert here(Key("default", "orders", "o-2")).state(now()) == "enabled"
        entry = AuditEntry.objects.get(action="drained")
        assert (entry.object_label, entry.reason, entry.before["state"], entry.after["state"]) == (
            "eu-1",
            "power",
            "enabled",
            "draining",
        )

    def test_who_comes_later_comes_into_a_draining_zone(self, post, live: SyncStore) -> None:
        post(ZONE, state="draining")
        late = Key("default", "late", "l-1")
        live.register(late, DOCUMENT)
        assert here(late).state(now()) == "draining"

    def test_they_are_listed_with_what_is_wanted_of_them(self, post, live: SyncStore) -> None:
        live.register(Key("default", "orders", "o-2"), Document(zone="eu-2"))
        post(ZONE, state="enabled", weight=3)
        first, second = api().get("/v1/zones").json()["results"]
        assert (first["name"], first["instances"], first["weight"]) == ("eu-1", 2, 3)
        assert (second["name"], second["instances"], second["weight"], second["state"]) == ("eu-2", 1, None, "enabled")
        assert api("acme").get("/v1/zones").json()["results"] == []

    def test_one_that_nobody_named_is_not_found(self, post) -> None:
        assert code(post("/v1/zones/moon/state", state="draining")) == (404, "not_found")
        assert code(api("acme").post(ZONE, {"state": "draining"})) == (404, "not_found")

    def test_the_projection_keeps_their_names(self, live: SyncStore) -> None:
        from registry.services import projection

        projection._last_full = float("-inf")
        project(live.redis)
        project(live.redis)
        assert list(Zone.objects.values_list("name", flat=True)) == []  # no tenant yet
        api()
        projection._last_full = float("-inf")
        project(live.redis)
        assert [str(zone) for zone in Zone.objects.all()] == ["eu-1"]


class TestEnds:
    def test_a_word_with_its_weight_ends_by_itself(self, post) -> None:
        until = timezone.now() + timedelta(hours=1)
        post(ZONE, state="draining", weight=7, expires_at=until.isoformat())
        before, after = until.timestamp() - 1, until.timestamp() + 1
        assert (here().state(before), here().weight(before)) == ("draining", 7)
        assert (here().state(after), here().weight(after)) == ("enabled", 100)


class TestUndo:
    @pytest.mark.parametrize("path", [INSTANCE, SERVICE, ZONE])
    def test_it_goes_back_to_what_was_and_back_again(self, post, path: str) -> None:
        post(path, state="maintenance", reason="disk", weight=4)
        post(path, state="draining", reason="wrong one")
        shown = post(path + "/undo", reason="oops").json()
        assert (shown["state"], shown["reason"], shown["weight"]) == ("maintenance", "disk", 4)
        assert (here().state(now()), here().weight(now())) == ("maintenance", 4)
        entry = AuditEntry.objects.get(action="undone")
        assert (entry.before["state"], entry.after["state"], entry.reason) == ("draining", "maintenance", "oops")
        assert post(path + "/undo").json()["state"] == "draining"

    def test_the_first_word_taken_back_is_no_word(self, post) -> None:
        post(INSTANCE, state="draining")
        post(INSTANCE + "/undo")
        assert here().state(now()) == "enabled"
        post(SERVICE, state="draining")
        assert here().state(now()) == "draining"

    def test_a_store_that_missed_it_does_not_win(self, post, live: SyncStore) -> None:
        post(INSTANCE, state="draining")
        old = live.read([KEY])[KEY].facts["state"]
        post(INSTANCE + "/undo")
        live.put_fact(KEY, "state", old)
        assert here().state(now()) == "enabled"

    def test_where_nothing_was_said_there_is_nothing_to_undo(self, post) -> None:
        assert code(post(INSTANCE + "/undo")) == (409, "conflict")


@pytest.mark.parametrize("weight", [-1, 1001, "5", 1.5, True])
def test_a_weight_is_a_whole_number_up_to_1000(post, weight: object) -> None:
    response = post(INSTANCE, state="enabled", weight=weight)
    assert (code(response), pointers(response)) == ((422, "validation_failed"), ["/weight"])


def test_a_wiped_store_undoes_no_word(post, live: SyncStore) -> None:
    post(ZONE, state="draining", weight=9)
    live.redis.flushall()
    live.register(KEY, DOCUMENT)
    publish_sections(live.redis)
    assert (here().state(now()), here().weight(now())) == ("draining", 9)
    assert live.read([Key("default", "", "eu-1")])[Key("default", "", "eu-1")].facts["state"].value == "draining"
