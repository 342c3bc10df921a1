from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from health.models import Flip, HealthCheck, ResultRollup
from registry.models import AuditEntry, Member, Service, Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _without_the_live_page(settings: Any) -> None:
    """The admin's header links to another app's page; health's own pages are looked at here."""
    settings.UNFOLD = {**settings.UNFOLD, "SITE_URL": "/"}


@pytest.fixture
def shop(db: None) -> Tenant:
    return Tenant.objects.create(name="shop")


@pytest.fixture
def orders(shop: Tenant) -> Service:
    return Service.objects.create(tenant=shop, name="orders")


def person(name: str, tenant: Tenant | None = None, role: str = Member.Role.VIEWER) -> Client:
    """A browser in which this person is logged in; without a tenant it is the administrator's."""
    user = User.objects.create_user(name, is_staff=True, is_superuser=tenant is None)
    if tenant:
        Member.objects.create(tenant=tenant, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


def form(service: Service, **changed: object) -> dict[str, object]:
    fields = {"check_type": "http", "path": "/up", "interval": 5, "timeout": 2, "enabled": "on"}
    return {"service": service.pk, "failure_threshold": 3, "success_threshold": 2, **fields, **changed}


def test_a_check_is_made_changed_and_deleted_by_hand_and_audited(orders: Service) -> None:
    browser = person("root")
    assert browser.post("/admin/health/healthcheck/add/", form(orders)).status_code == 302
    check = HealthCheck.objects.get()
    assert (check.path, check.interval) == ("/up", 5)

    url = f"/admin/health/healthcheck/{check.pk}/"
    assert browser.get(url + "change/").status_code == 200
    assert browser.post(url + "change/", form(orders, interval=9)).status_code == 302
    assert browser.post(url + "delete/", {"post": "yes"}).status_code == 302
    entries = AuditEntry.objects.filter(object_type="health.HealthCheck").order_by("pk")
    assert [(entry.action, entry.actor) for entry in entries] == [
        ("created", "root"),
        ("changed", "root"),
        ("deleted", "root"),
    ]
    assert entries[1].after["interval"] == 9


def test_a_bad_interval_is_refused_in_the_form(orders: Service) -> None:
    answer = person("root").post("/admin/health/healthcheck/add/", form(orders, interval=0.1))
    assert answer.status_code == 200
    assert "greater than or equal to 1.0" in answer.content.decode()
    assert not HealthCheck.objects.exists()


def test_lists_show_what_happened_and_take_no_writes(shop: Tenant, orders: Service) -> None:
    HealthCheck.objects.create(service=orders, path="/deep")
    flip = Flip.objects.create(
        tenant=shop,
        service="orders",
        instance_id="one",
        old="healthy",
        new="unhealthy",
        sentence="GET /up answered 500",
    )
    ResultRollup.objects.create(
        tenant=shop, service="orders", instance_id="one", minute=timezone.now(), passed=3, failed=1, latency_sum=0.1
    )
    browser = person("root")
    assert "GET /deep at first endpoint" in browser.get("/admin/health/healthcheck/").content.decode()
    assert "GET /up answered 500" in browser.get("/admin/health/flip/").content.decode()
    assert "25.0 ms" in browser.get("/admin/health/resultrollup/").content.decode()
    assert browser.get("/admin/health/flip/add/").status_code == 403
    assert browser.post(f"/admin/health/flip/{flip.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_viewer_looks_an_operator_writes_and_a_stranger_sees_nothing(shop: Tenant, orders: Service) -> None:
    check = HealthCheck.objects.create(service=orders, path="/deep")
    viewer, operator = person("viewer", shop), person("operator", shop, Member.Role.OPERATOR)
    stranger = person("stranger", Tenant.objects.create(name="other"), Member.Role.OWNER)
    url = f"/admin/health/healthcheck/{check.pk}/change/"

    assert "/deep" in viewer.get("/admin/health/healthcheck/").content.decode()
    assert viewer.post(url, form(orders)).status_code == 403
    assert operator.post(url, form(orders)).status_code == 302
    assert "orders" not in stranger.get("/admin/health/healthcheck/").content.decode()
    assert stranger.post(url, form(orders, path="/stolen")).status_code == 302  # to the index: there is no such check
    assert stranger.post("/admin/health/healthcheck/add/", form(orders, path="/mine")).status_code == 200  # refused
    assert HealthCheck.objects.get().path == "/up"
