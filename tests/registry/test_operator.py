from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone

from registry.live.catalog import Catalog
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.instances import Instance as Live
from registry.live.node import set_current
from registry.live.store import SyncStore
from registry.models import AuditEntry, Instance, Service
from registry.selectors import catalog, why
from tests.api import api, code, pointers, tenant

pytestmark = pytest.mark.django_db
KEY = Key("default", "orders", "o-1")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "10.0.0.1", 8000)}, tags=("api", "eu"), zone="a")


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    """The live state, with one instance of `orders` in it."""
    known = SyncStore(store)
    known.register(KEY, DOCUMENT)
    return known


@pytest.fixture
def commits(django_capture_on_commit_callbacks) -> Any:
    return lambda: django_capture_on_commit_callbacks(execute=True)


def state_of(key: Key = KEY) -> str:
    instance = catalog().get(key)
    assert instance is not None
    return instance.state(timezone.now().timestamp())


class TestState:
    def test_draining_an_instance_is_a_row_an_audit_entry_and_a_fact(self, live: SyncStore, commits) -> None:
        with commits():
            response = api().post("/v1/services/orders/o-1/state", {"state": "draining", "reason": "new disk"})
        body = response.json()
        assert (response.status_code, body["state"], body["reason"], body["expires_at"]) == (
            200,
            "draining",
            "new disk",
            None,
        )
        assert state_of() == "draining"
        assert Instance.objects.get().state == "draining"
        entry = AuditEntry.objects.get(action="drained")
        assert (entry.reason, entry.object_label) == ("new disk", "orders/o-1")
        fact = live.read([KEY])[KEY].facts["state"]
        assert "new disk" in fact.sentence

    def test_it_comes_back(self, live: SyncStore, commits) -> None:
        client = api()
        for state in ("maintenance", "enabled"):
            with commits():
                client.post("/v1/services/orders/o-1/state", {"state": state})
        assert state_of() == "enabled"

    def test_a_whole_service_goes_into_maintenance_until_a_moment(self, live: SyncStore, commits) -> None:
        until = timezone.now() + timedelta(hours=1)
        with commits():
            body = {"state": "maintenance", "expires_at": until.isoformat()}
            assert api().post("/v1/services/orders/state", body).status_code == 200
        instance = catalog().get(KEY)
        assert instance is not None
        assert instance.state(until.timestamp() - 1) == "maintenance"
        assert instance.state(until.timestamp() + 1) == "enabled"

    def test_a_store_that_is_away_fails_nothing_once_the_row_is_known(self, settings, caplog, commits) -> None:
        Instance.objects.create(service=Service.objects.create(tenant=tenant(), name="orders"), instance_id="o-1")
        settings.REDIS_URL = "redis://127.0.0.1:1"
        with commits():
            assert api().post("/v1/services/orders/o-1/state", {"state": "draining"}).status_code == 200
        assert "reaches it later" in caplog.text

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "/state"),
            ({"state": "gone"}, "/state"),
            ({"state": None}, "/state"),
            ({"state": "draining", "reason": 5}, "/reason"),
            ({"state": "draining", "reason": "x" * 501}, "/reason"),
            ({"state": "draining", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
            ({"state": "draining", "until": "x"}, "/until"),
        ],
    )
    def test_it_refuses_a_bad_body(self, live: SyncStore, body: dict[str, Any], pointer: str) -> None:
        response = api().post("/v1/services/orders/o-1/state", body)
        assert code(response) == (422, "validation_failed")
        assert pointers(response) == [pointer]
        assert not Service.objects.exists()

    @pytest.mark.parametrize("path", ["orders/o-2", "nobody/o-1", "nobody"])
    def test_what_nobody_heard_of_is_not_found(self, live: SyncStore, path: str) -> None:
        assert code(api().post(f"/v1/services/{path}/state", {"state": "draining"})) == (404, "not_found")

    def test_another_tenants_instance_is_not_found(self, live: SyncStore) -> None:
        response = api("acme").post("/v1/services/orders/o-1/state", {"state": "draining"})
        assert code(response) == (404, "not_found")
        assert state_of() == "enabled"


class TestWhy:
    def test_it_says_why_an_instance_gets_traffic(self, live: SyncStore) -> None:
        body = api().get("/v1/services/orders/o-1/why").json()
        assert (body["eligible"], body["health"], body["state"], body["live"]) == (True, "unknown", "enabled", True)
        assert "not known yet" in body["sentence"]

    def test_it_shows_the_facts_behind_it(self, live: SyncStore) -> None:
        live.put_fact(KEY, "probe", Fact("unhealthy", "It answered 500.", since=1_000_000.0, source="health"))
        body = api().get("/v1/services/orders/o-1/why").json()
        assert body["eligible"] is False
        assert body["sentence"] == "It gets no traffic: it is unhealthy. It answered 500."
        assert body["facts"]["probe"]["since"] == "1970-01-12T13:46:40+00:00"

    def test_an_instance_that_is_gone_is_told_so(self, live: SyncStore) -> None:
        service = Service.objects.create(tenant=tenant(), name="orders")
        Instance.objects.create(service=service, instance_id="o-9", live=False, gone_at=timezone.now())
        body = api().get("/v1/services/orders/o-9/why").json()
        assert (body["eligible"], body["live"]) == (False, False)
        assert "no lease" in body["sentence"]

    def test_another_tenants_instance_is_not_found(self, live: SyncStore) -> None:
        assert code(api("acme").get("/v1/services/orders/o-1/why")) == (404, "not_found")

    def test_it_is_said_when_the_live_state_is_away(self, settings) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1"
        response = api().get("/v1/services/orders/o-1/why")
        assert code(response) == (503, "unavailable")
        assert response["Retry-After"]

    @pytest.mark.parametrize(
        ("facts", "eligible", "part"),
        [
            ({"state": Fact("draining", "Set to draining by ann: new disk")}, False, "new disk."),
            ({"service_state": Fact("maintenance", "Set to maintenance by ann")}, False, "maintenance by ann."),
            ({"state": Fact("draining", "old", expires_at=5.0)}, True, "not known yet"),
            ({"probe": Fact("healthy")}, True, "healthy"),
            ({"reported": Fact("degraded")}, True, "degraded"),
            ({"probe": Fact("healthy"), "reported": Fact("unhealthy", "Disk full.")}, False, "Disk full."),
        ],
    )
    def test_the_sentence_follows_the_facts(self, facts: dict[str, Fact], eligible: bool, part: str) -> None:
        found = why(Live(KEY, DOCUMENT, 0.0, facts), now=10.0)
        assert found.eligible is eligible
        assert part in found.sentence
        assert ("no traffic" in found.sentence) is not eligible


class TestScrapeTargets:
    def test_prometheus_finds_every_instance_that_speaks_http(self, live: SyncStore) -> None:
        live.register(Key("default", "queue", "q-1"), Document(endpoints={"tcp": Endpoint("tcp", "10.0.0.2", 1)}))
        live.register(
            Key("default", "six", "s-1"),
            Document(
                endpoints={"http": Endpoint("http", "::1", 80), "metrics": Endpoint("https", "::1", 9000)},
                metadata={"metrics_path": "/m"},
            ),
        )
        orders, six = api().get("/v1/prometheus/targets").json()
        assert orders["targets"] == ["10.0.0.1:8000"]
        assert orders["labels"]["service"] == "orders"
        assert orders["labels"]["__meta_anumate_tags"] == ",api,eu,"
        assert six["targets"] == ["[::1]:9000"]
        assert (six["labels"]["__scheme__"], six["labels"]["__metrics_path__"]) == ("https", "/m")

    def test_another_tenants_are_not_among_them(self, live: SyncStore) -> None:
        assert api("acme").get("/v1/prometheus/targets").json() == []

    def test_nothing_to_scrape_is_an_empty_list_and_no_error(self, store: redis.Redis) -> None:
        client = api()
        for accept in ("application/json", "text/plain", "*/*", "application/openmetrics-text"):
            answer = client.get(
                "/v1/prometheus/targets",
                headers={"Accept": accept, "X-Prometheus-Refresh-Interval-Seconds": "60.000000"},
            )
            assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
            assert answer.content == b"[]"

    def test_labels_are_texts_that_prometheus_takes(self, live: SyncStore) -> None:
        metadata = {"team.name": "shop", "metrics_path": "m"}
        document = Document("2.0", {"http": Endpoint("http", "10.0.0.9", 80)}, zone="eu-1", metadata=metadata)
        for number in (1, 2):
            live.register(Key("default", "a-first", f"a-{number}"), document)
        live.put_fact(Key("default", "a-first", "a-1"), "state", Fact("draining"))
        groups = api().get("/v1/prometheus/targets").json()
        assert [group["labels"]["service"] for group in groups] == ["a-first", "a-first", "orders"]
        for group in groups:
            assert group.keys() == {"targets", "labels"}
            assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in group["labels"])
            assert all(isinstance(value, str) for value in group["labels"].values())
        labels = groups[0]["labels"]
        said = {name.removeprefix("__meta_anumate_"): value for name, value in labels.items()}
        assert said["instance_id"] == "a-1"
        assert (said["version"], said["zone"], said["state"], said["health"]) == ("2.0", "eu-1", "draining", "unknown")
        assert said["metadata_team_name"] == "shop"
        assert labels["__metrics_path__"] == "/metrics"

    def test_an_endpoint_of_that_name_that_does_not_speak_http_is_not_scraped(self, live: SyncStore) -> None:
        endpoints = {"metrics": Endpoint("tcp", "10.0.0.9", 81), "web": Endpoint("http", "10.0.0.9", 80)}
        live.register(Key("default", "a-first", "a-1"), Document(endpoints=endpoints))
        assert api().get("/v1/prometheus/targets").json()[0]["targets"] == ["10.0.0.9:80"]


def test_the_catalogue_of_the_process_answers_when_there_is_one() -> None:
    class Node:
        catalog = Catalog()

    set_current(Node())  # type: ignore[arg-type]
    try:
        assert catalog() is Node.catalog
    finally:
        set_current(None)
