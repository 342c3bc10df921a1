from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from anumate.faces.access import choose_tenant, tenants_of
from health.models import Flip
from registry.models import Member, Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> User:
    return User.objects.create_superuser("root")


@pytest.fixture
def maria() -> User:
    return User.objects.create_user("maria", is_staff=True)


@pytest.fixture
def tenants() -> list[Tenant]:
    return [Tenant.objects.create(name=name) for name in ("acme", "default", "zeta")]


def test_a_superuser_sees_every_active_tenant_the_default_one_first(root: User, tenants: list[Tenant]) -> None:
    Tenant.objects.create(name="closed", active=False)
    assert tenants_of(root) == ("default", "acme", "zeta")


def test_staff_see_the_tenants_they_are_members_of(maria: User, tenants: list[Tenant]) -> None:
    Member.objects.create(tenant=tenants[2], user=maria)
    assert tenants_of(maria) == ("zeta",)


def test_who_is_not_staff_sees_none(maria: User, tenants: list[Tenant]) -> None:
    Member.objects.create(tenant=tenants[0], user=maria)
    maria.is_staff = False
    assert tenants_of(maria) == ()


def test_only_a_tenant_that_may_be_seen_is_chosen() -> None:
    assert choose_tenant(("a", "b"), "") == "a"
    assert choose_tenant(("a", "b"), "b") == "b"
    assert choose_tenant(("a", "b"), "c") is None
    assert choose_tenant((), "") is None


def test_the_root_leads_to_the_live_page(client: Client) -> None:
    assert client.get("/").headers["Location"] == "/live/"


def test_the_live_page_asks_to_sign_in_first(client: Client) -> None:
    assert client.get("/live/").headers["Location"] == "/admin/login/?next=/live/"


def test_the_live_page_lets_no_foreign_or_inline_script_run(client: Client, root: User, tenants: list[Tenant]) -> None:
    client.force_login(root)
    response = client.get("/live/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "ws://testserver" in policy
    assert "unsafe" not in policy
    page = response.content.decode()
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick=" not in page
    assert 'data-socket="/ws/live/?tenant=default"' in page


def test_a_tenant_that_may_not_be_seen_is_not_found(client: Client, maria: User, tenants: list[Tenant]) -> None:
    Member.objects.create(tenant=tenants[0], user=maria)
    client.force_login(maria)
    response = client.get("/live/?tenant=zeta")
    assert response.status_code == 404
    assert b'data-socket=""' in response.content
    assert client.get("/live/?tenant=acme").status_code == 200


def test_who_is_a_member_of_nothing_is_told_what_to_do(client: Client, maria: User) -> None:
    client.force_login(maria)
    assert b"You are a member of no tenant yet." in client.get("/live/").content


def test_the_admins_home_shows_the_journal_of_ones_own_tenant(
    client: Client, maria: User, tenants: list[Tenant]
) -> None:
    Member.objects.create(tenant=tenants[0], user=maria)
    for tenant in tenants:
        Flip.objects.create(
            tenant=tenant,
            service=f"{tenant.name}-orders",
            instance_id="a",
            old="healthy",
            new="unhealthy",
            sentence="Connection refused.",
        )
    client.force_login(maria)
    page = client.get("/admin/?tenant=zeta").content.decode()
    assert "acme-orders/a" in page
    assert "zeta-orders" not in page


def test_the_admins_home_reads_a_steady_number_of_rows(
    client: Client, root: User, tenants: list[Tenant], django_assert_max_num_queries: pytest.FixtureRequest
) -> None:
    client.force_login(root)
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        client.get("/admin/")


def test_the_sidebar_offers_only_what_a_person_may_look_at(client: Client, root: User, maria: User) -> None:
    Member.objects.create(tenant=Tenant.objects.create(name="acme"), user=maria)
    for user, people in ((maria, False), (root, True)):
        client.force_login(user)
        page = client.get("/admin/").content.decode()
        assert "/admin/registry/service/" in page
        assert ("/admin/auth/user/" in page) is people


def test_the_login_page_shows_no_way_back_to_itself(client: Client) -> None:
    assert "Return to site" not in client.get("/admin/login/").content.decode()
