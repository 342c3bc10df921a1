from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from gateway.models import Route
from registry.models import AuditEntry, Member
from registry.services.changes import SYSTEM
from registry.services.keys import create_key
from tests.api import api, tenant

pytestmark = pytest.mark.django_db

PAGE = "/admin/gateway/route/explain/"


@pytest.fixture(autouse=True)
def _store(store) -> None:
    """Instances are asked of a real store."""


@pytest.fixture
def viewer() -> Client:
    """Somebody who may look at the default tenant, and no more."""
    user = User.objects.create(username="viewer", is_staff=True)
    Member.objects.create(tenant=tenant(), user=user, role=Member.Role.VIEWER)
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


def asked(client: Client, **said: Any) -> str:
    return str(client.post(PAGE, {"tenant": "default", "method": "GET", "address": "/", **said}).content.decode())


def test_it_says_which_route_takes_a_request_and_why_the_others_do_not(viewer: Client) -> None:
    api().post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
    api().post("/v1/routes", {"name": "shop", "hosts": ["shop.example"], "path": "/", "service": "web"})
    page = asked(viewer, address="http://any.example/orders/7?a=b")
    assert "Route orders takes the request." in page
    assert "Its host is shop.example, not any.example." in page
    assert "It has no instance." in page
    assert "The caller needs an API key with gateway:invoke." in page


def test_it_says_so_when_no_route_takes_it(viewer: Client) -> None:
    assert "No route takes the request." in asked(viewer, address="/nowhere")


def test_a_key_is_judged_and_never_shown(viewer: Client) -> None:
    api().post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
    made = create_key(SYSTEM, tenant(), "mobile app", ["gateway:invoke"])
    page = asked(viewer, address="/orders", key=made.secret)
    assert "The key mobile app may use the route." in page
    assert made.secret not in page


def test_keys_and_tokens_among_the_header_fields_are_not_shown_again(viewer: Client) -> None:
    fields = "X-A: shown\nauthorization : Bearer a.b.c\nX-API-Key: anm_1"
    for method in ("GET", "a b"):
        page = asked(viewer, address="/orders", headers=fields, method=method)
        assert "X-A: shown" in page
        assert "a.b.c" not in page
        assert "anm_1" not in page


def test_what_cannot_be_asked_is_said_at_its_field(viewer: Client) -> None:
    page = asked(viewer, address="nonsense://", headers="no colon", method="a b")
    for sentence in ("This is no address and no path.", "has no colon. Write it as name: value.", "is no method."):
        assert sentence in page
    assert "The path holds a control character" in asked(viewer, address="/a%00b")


def test_another_tenants_routes_stay_unseen(viewer: Client) -> None:
    tenant("acme")
    api("acme").post("/v1/routes", {"name": "theirs", "path": "/", "service": "secret"})
    assert "theirs" not in asked(viewer)
    assert "Select a valid choice" in asked(viewer, tenant="acme")


def test_it_changes_nothing_and_needs_a_person(viewer: Client) -> None:
    before = AuditEntry.objects.count()
    asked(viewer)
    assert "no-store" in viewer.get(PAGE)["Cache-Control"]
    assert AuditEntry.objects.count() == before
    assert Client().get(PAGE).status_code == 302
    stranger = User.objects.create(username="stranger", is_staff=True)
    client = Client()
    client.force_login(stranger)
    assert client.get(PAGE).status_code == 403
    assert Client(enforce_csrf_checks=True).post(PAGE, {}).status_code in (302, 403)


def test_a_routes_own_page_leads_to_it_with_a_request_that_fits(viewer: Client) -> None:
    api().post("/v1/routes", {"name": "orders", "path": "/orders", "hosts": ["shop.example"], "service": "orders"})
    row = Route.objects.get(name="orders")
    page = reverse("admin:gateway_route_change", args=[row.pk])
    link = f"/admin/gateway/route/{row.pk}/explain/"
    assert link in viewer.get(page).content.decode()
    answer = viewer.get(link, follow=True)
    assert 'value="http://shop.example/orders"' in answer.content.decode()
    assert PAGE in viewer.get(reverse("admin:gateway_route_changelist")).content.decode()
