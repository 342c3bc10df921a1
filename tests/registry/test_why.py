"""The one answer to why an instance, or a service, gets traffic or does not."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client

from gateway.models import Route, RouteTarget
from gateway.proxy.reports import FORCE, REPORTS, BreakerReport, Force, WorkerReport, key_of_report
from registry.live import ops
from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import SyncStore
from registry.models import Instance, Service
from tests.api import api, code, tenant

pytestmark = pytest.mark.django_db
KEY, TWO = Key("default", "orders", "o-1"), Key("default", "orders", "o-2")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "10.0.0.1", 8000)}, zone="eu-1")


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    known = SyncStore(store)
    known.register(KEY, DOCUMENT)
    return known


def answer(path: str = "orders/o-1") -> dict[str, Any]:
    body: dict[str, Any] = api().get(f"/v1/services/{path}/why").json()
    return body


def told(kind: str, path: str = "orders/o-1") -> list[dict[str, Any]]:
    return [each for each in answer(path)["findings"] if each["kind"] == kind]


def route(version: str, name: str = "all") -> None:
    service = Service.objects.get_or_create(tenant=tenant(), name="orders")[0]
    made = Route.objects.create(tenant=tenant(), name=name, path=f"/{name}")
    RouteTarget.objects.create(route=made, service=service, version=version)


def report(live: SyncStore, **breaker: Any) -> None:
    body = WorkerReport("w", time.time(), (BreakerReport("default", "orders", **breaker),))
    live.redis.set(key_of_report("w"), msgspec.json.encode(body))
    live.redis.zadd(REPORTS, {"w": time.time()})


class TestOfAnInstance:
    def test_it_tells_until_when_the_lease_lasts(self, live: SyncStore) -> None:
        (lease,) = told("lease")
        assert lease["details"] == {"held": False}
        assert "lease of 30 s" in lease["sentence"]
        assert lease["until"] > lease["since"]

    def test_it_tells_that_a_lapsed_lease_is_held(self, live: SyncStore) -> None:
        live.redis.zadd(ops.PREFIX + "leases", {str(KEY): 1_000})
        (lease,) = told("lease")
        assert (lease["details"], lease["until"]) == ({"held": True}, "1970-01-01T00:00:01+00:00")

    def test_it_tells_each_check_and_its_last_result(self, live: SyncStore) -> None:
        (check,) = told("check")
        assert check["sentence"] == "TCP check: It has not been asked yet"
        assert check["details"]["checked_at"] is None

    def test_it_tells_whose_word_decides_and_whose_is_passed_over(self, live: SyncStore) -> None:
        live.put_fact(Key("default", "", "eu-1"), "state", Fact("draining", "Set to draining by ann: power"))
        live.put_fact(Key("default", "orders"), "state", Fact("maintenance", "Set to maintenance by bob", source="bob"))
        body = answer()
        assert body["sentence"] == "It gets no traffic. The whole service: Set to maintenance by bob."
        assert (body["eligible"], body["decided_by"]) == (False, "service")
        service, zone = told("state")
        assert (service["details"]["level"], service["blocks"], service["source"]) == ("service", True, "bob")
        assert (zone["details"]["level"], zone["blocks"]) == ("zone", False)
        assert "service's word comes first" in zone["sentence"]

    def test_it_tells_the_zone(self, live: SyncStore) -> None:
        assert [each["sentence"] for each in told("zone")] == ["It is in zone eu-1"]
        assert answer()["zone"] == "eu-1"

    def test_an_open_breaker_keeps_traffic_away_and_says_who_forced_it(self, live: SyncStore) -> None:
        assert not told("breaker")[0]["blocks"]
        report(live, state="open", forced=True, reason="the bank is away", seconds_in_state=60.0)
        force = Force("open", 1, "ann", "the bank is away", 5.0)
        live.redis.hset(FORCE, "default/orders", msgspec.json.encode(force))
        body = answer()
        assert body["eligible"] is False
        expected = "It gets no traffic. The circuit breaker of orders is open, forced by ann: the bank is away."
        assert body["sentence"] == expected
        assert told("breaker")[0]["source"] == "ann"

    def test_a_version_that_every_route_passes_over_gets_nothing(self, live: SyncStore) -> None:
        route(">=2", "new")
        body = answer()
        assert body["sentence"] == "It gets no traffic. Route new passes it over: it is of version 1.0, not >=2."
        assert body["eligible"] is False
        route("<2", "old")
        assert answer()["eligible"] is True
        assert [each["details"]["route"] for each in told("version")] == ["new"]

    def test_no_route_is_said_and_keeps_nobody_away(self, live: SyncStore) -> None:
        assert "No route leads to orders" in told("route")[0]["sentence"]
        assert answer()["eligible"] is True


class TestOfAService:
    def test_it_counts_who_gets_traffic_and_names_one_who_does_not(self, live: SyncStore) -> None:
        assert answer("orders")["sentence"] == "It gets traffic: its one instance does."
        live.register(TWO, DOCUMENT)
        live.put_fact(TWO, "probe", Fact("unhealthy", "It answers 500."))
        body = answer("orders")
        assert (body["eligible"], body["live"]) == (1, 2)
        assert body["sentence"].endswith("Of o-2: It gets no traffic: it is unhealthy. It answers 500.")
        assert [each["instance_id"] for each in body["instances"]] == ["o-1", "o-2"]
        live.put_fact(Key("default", "orders"), "state", Fact("draining", "Set to draining by ann"))
        assert answer("orders")["sentence"].startswith("It gets no traffic: none of its 2 instances does.")

    def test_one_without_instances_is_told_so_and_an_unknown_one_is_not_found(self, live: SyncStore) -> None:
        Service.objects.create(tenant=tenant(), name="empty")
        assert "no instance of it holds a lease" in answer("empty")["sentence"]
        assert code(api().get("/v1/services/nobody/why")) == (404, "not_found")
        assert code(api("acme").get("/v1/services/orders/why")) == (404, "not_found")


class TestPages:
    def page(self, path: str) -> str:
        client = Client()
        client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
        return client.get(path).content.decode()

    def test_the_pages_of_instance_and_service_say_it(self, live: SyncStore) -> None:
        service = Service.objects.create(tenant=tenant(), name="orders")
        row = Instance.objects.create(service=service, instance_id="o-1")
        assert "It gets traffic: it holds a lease" in self.page(f"/admin/registry/instance/{row.pk}/change/")
        User.objects.all().delete()
        assert "It gets traffic: its one instance does." in self.page(f"/admin/registry/service/{service.pk}/change/")

    def test_they_open_while_the_live_state_is_away(self, settings) -> None:
        row = Instance.objects.create(service=Service.objects.create(tenant=tenant(), name="orders"), instance_id="o-1")
        settings.REDIS_URL = "redis://127.0.0.1:1"
        assert "The live state is away." in self.page(f"/admin/registry/instance/{row.pk}/change/")
