from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from health.models import Flip, HealthCheck
from registry.models import AuditEntry, Service, Tenant
from registry.services.changes import SYSTEM
from registry.services.keys import create_key
from tests.health.conftest import Register
from tests.health.servers import Switchable

pytestmark = pytest.mark.django_db(transaction=True)

Call = Callable[..., Any]


def caller(tenant: Tenant, *scopes: str) -> Call:
    """Calls the API with a key of its own; answers the status and the decoded body."""
    secret = create_key(SYSTEM, tenant, "test", scopes).secret

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = {} if body is None else {"data": json.dumps(body), "content_type": "application/json"}
        answer = Client(headers={"X-API-Key": secret}).generic(method, path, **data)  # type: ignore[arg-type]
        return answer.status_code, json.loads(answer.content)

    return call


@pytest.fixture
def api(shop: Tenant) -> Call:
    return caller(shop, "health:read", "health:write")


def test_configure_makes_a_check_and_later_changes_it(api: Call, orders: Service) -> None:
    body = {"service_name": "orders", "check_type": "http", "path": "/up", "interval": 30, "timeout": 10}
    status, made = api("POST", "/v1/health/configure", body)
    assert status == 201
    assert {
        **body,
        "instance_id": "",
        "failure_threshold": 3,
        "success_threshold": 2,
        "enabled": True,
    }.items() <= made.items()

    status, changed = api("POST", "/v1/health/configure", {**body, "path": "/healthz", "interval": 5})
    assert (status, changed["id"], changed["path"], changed["interval"]) == (200, made["id"], "/healthz", 5)
    assert HealthCheck.objects.get().service == orders
    assert [entry.action for entry in AuditEntry.objects.filter(object_type="health.HealthCheck")] == [
        "changed",
        "created",
    ]


def test_a_check_of_a_service_that_nobody_knows_is_refused_and_makes_none(api: Call, shop: Tenant) -> None:
    status, problem = api("POST", "/v1/health/configure", {"service_name": "ordres", "check_type": "http"})
    assert (status, problem["code"]) == (404, "not_found")
    assert not Service.objects.exists()


def test_a_service_that_is_live_and_has_no_row_yet_can_be_given_a_check(api: Call, register: Register) -> None:
    register(8000)
    assert api("POST", "/v1/health/configure", {"service_name": "orders", "check_type": "http"})[0] == 201
    assert Service.objects.get().name == "orders"


def test_a_check_of_an_instance_that_nobody_knows_is_refused_and_makes_none(api: Call, orders: Service) -> None:
    body = {"service_name": "orders", "instance_id": "onne", "check_type": "http"}
    status, problem = api("POST", "/v1/health/configure", body)
    assert (status, problem["code"], problem["detail"]) == (404, "not_found", "There is no such instance.")
    assert not HealthCheck.objects.exists()


def test_an_instance_that_is_live_or_was_here_before_can_be_given_a_check(
    api: Call, orders: Service, register: Register
) -> None:
    register(8000, "here")
    orders.instances.create(instance_id="was-here", live=False)
    for name in ("here", "was-here"):
        body = {"service_name": "orders", "instance_id": name, "check_type": "http"}
        assert api("POST", "/v1/health/configure", body)[0] == 201


def test_a_check_of_an_instance_that_is_forgotten_can_still_be_switched_off(api: Call, orders: Service) -> None:
    HealthCheck.objects.create(service=orders, instance_id="forgotten")
    body = {"service_name": "orders", "instance_id": "forgotten", "check_type": "http", "enabled": False}
    status, check = api("POST", "/v1/health/configure", body)
    assert (status, check["enabled"]) == (200, False)


def test_of_several_checks_the_path_says_which_one_is_meant(api: Call, orders: Service) -> None:
    for path in ("/a", "/b"):
        HealthCheck.objects.create(service=orders, path=path)
    base = {"service_name": "orders", "check_type": "http"}
    assert api("POST", "/v1/health/configure", {**base, "path": "/b", "interval": 7})[0] == 200
    assert api("POST", "/v1/health/configure", {**base, "path": "/c"})[0] == 201
    assert dict(HealthCheck.objects.values_list("path", "interval")) == {"/a": 30, "/b": 7, "/c": 30}


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"interval": 0.5}, "/interval"),
        ({"interval": "30"}, "/interval"),
        ({"timeout": 31}, "/timeout"),
        ({"check_type": "smtp"}, "/check_type"),
        ({"path": "no slash"}, "/path"),
        ({"path": "/a\r\nX-Evil: 1"}, "/path"),
        ({"service_name": "Not A Label"}, "/service_name"),
        ({"service_name": "watch"}, "/service_name"),
        ({"instance_id": "a/b"}, "/instance_id"),
        ({"failure_threshold": 0}, "/failure_threshold"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_configure_refuses_with_a_pointer(api: Call, wrong: dict[str, Any], pointer: str) -> None:
    status, problem = api("POST", "/v1/health/configure", {"service_name": "orders", "check_type": "http"} | wrong)
    assert (status, problem["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert not HealthCheck.objects.exists()
    assert not Service.objects.exists()


def test_scopes_are_needed(shop: Tenant) -> None:
    reader = caller(shop, "health:read")
    status, problem = reader("POST", "/v1/health/configure", {"service_name": "orders", "check_type": "tcp"})
    assert (status, problem["code"]) == (403, "scope_missing")
    status, problem = caller(shop, "gateway:read")("GET", "/v1/health/status")
    assert (status, problem["code"]) == (403, "scope_missing")


def test_status_shows_every_instance_with_its_checks(
    api: Call, server: Switchable, register: Register, turn: Callable[..., None]
) -> None:
    server.status = 500
    register(server.port, "ill", check=json.dumps({"path": "/up", "interval": 2}))
    register(server.port, "well")
    register(server.port, "quiet", service="payments")
    turn()
    register(server.port, "new")

    status, body = api("GET", "/v1/health/status")
    assert status == 200
    assert body["status"] == "unhealthy"
    assert body["counts"] == {"unhealthy": 1, "degraded": 0, "unknown": 1, "healthy": 2}
    orders, payments = body["services"]
    assert (orders["name"], orders["status"]) == ("orders", "unhealthy")
    assert (payments["name"], payments["status"]) == ("payments", "healthy")
    ill, new, well = orders["instances"]
    assert (ill["instance_id"], ill["status"], ill["state"]) == ("ill", "unhealthy", "enabled")
    assert ill["sentence"] == "GET /up answered 500"
    assert ill["since"].endswith("Z")
    (check,) = ill["checks"]
    assert (check["check_type"], check["path"], check["interval"], check["origin"]) == ("http", "/up", 2, "instance")
    assert check["sentence"] == "GET /up answered 500"
    assert 0 < check["latency"] < 5
    assert (new["status"], new["checks"][0]["checked_at"]) == ("unknown", None)
    assert (well["status"], well["checks"][0]["origin"]) == ("healthy", "default")

    assert [each["name"] for each in api("GET", "/v1/health/status?service_name=payments")[1]["services"]] == [
        "payments"
    ]
    nothing = api("GET", "/v1/health/status?service_name=nobody")
    assert nothing == (200, {"status": "unknown", "services": [], "counts": dict.fromkeys(body["counts"], 0)})


def test_a_check_of_an_endpoint_that_is_not_there_says_so(
    api: Call, server: Switchable, register: Register, turn: Callable[..., None], orders: Service
) -> None:
    HealthCheck.objects.create(service=orders, endpoint="admin")
    register(server.port)
    turn()
    (instance,) = api("GET", "/v1/health/status")[1]["services"][0]["instances"]
    assert instance["status"] == "unknown"
    assert instance["checks"][0]["sentence"] == "It has no endpoint named admin"


def test_incidents_begin_with_one_flip_and_end_with_the_next(api: Call, shop: Tenant) -> None:
    story = [("one", "unknown", "healthy"), ("one", "healthy", "unhealthy"), ("two", "healthy", "degraded")]
    for instance_id, old, new in [*story, ("one", "unhealthy", "healthy")]:
        Flip.objects.create(tenant=shop, service="orders", instance_id=instance_id, old=old, new=new, sentence="so")

    status, body = api("GET", "/v1/health/incidents")
    assert status == 200
    two, one = body["results"]
    assert (two["instance_id"], two["status"], two["ended_at"]) == ("two", "degraded", None)
    assert (one["service_name"], one["status"], one["sentence"]) == ("orders", "unhealthy", "so")
    assert one["started_at"] < one["ended_at"]
    assert [each["instance_id"] for each in api("GET", "/v1/health/incidents?open=true")[1]["results"]] == ["two"]
    assert api("GET", "/v1/health/incidents?service_name=payments")[1]["count"] == 0


def test_nothing_of_another_tenant_is_seen_or_touched(
    server: Switchable, register: Register, turn: Callable[..., None], api: Call, orders: Service
) -> None:
    other = Tenant.objects.create(name="other")
    stranger = caller(other, "health:read", "health:write")
    register(server.port)
    server.status = 500
    turn()
    HealthCheck.objects.create(service=orders)

    assert stranger("GET", "/v1/health/status")[1]["services"] == []
    assert stranger("GET", "/v1/health/incidents")[1]["count"] == 0
    assert stranger("POST", "/v1/health/configure", {"service_name": "orders", "check_type": "http"})[0] == 404
    assert HealthCheck.objects.filter(service=orders).count() == 1
