"""What viewer, operator and owner may do: in the API, over every operation it documents, and in the admin."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from anumate.lib.problem import Problem
from gateway.models import RateLimitPolicy
from registry.models import ApiKey, AuditEntry, Member, Service, Tenant
from registry.services.changes import SYSTEM
from registry.services.keys import create_key
from registry.services.members import delete_person, keep_an_owner, remove_member, save_person
from tests.api import any_path, code, documented, tenant

pytestmark = pytest.mark.django_db
OWNERS = re.compile(r"/v1/(api-keys|config)")
PLATFORMS = re.compile(r"/v1/tenants")


@pytest.fixture(autouse=True)
def _store(store) -> None:
    """Some operations ask the live state."""


def writes() -> list[tuple[str, str]]:
    """Every documented operation that changes something, but the lane's, which knows keys only."""
    return [(method, any_path(path)) for method, path in documented(lane=False) if method != "get"]


def member(role: str, name: str = "") -> Member:
    user = User.objects.create(username=name or role, is_staff=True)
    return Member.objects.create(tenant=tenant("acme"), user=user, role=role)


def session(role: str) -> APIClient:
    client = APIClient()
    client.force_login(member(role).user)
    return client


def refused(client: APIClient, method: str, path: str) -> bool:
    answer = getattr(client, method)(path, {})
    return answer.status_code == 403 and code(answer) == (403, "scope_missing")


class TestTheApi:
    def test_there_is_something_to_ask(self) -> None:
        assert len(writes()) > 20

    def test_a_viewer_changes_nothing(self) -> None:
        client = session("viewer")
        assert [each for each in writes() if not refused(client, *each) and "explain" not in each[1]] == []

    def test_an_operator_changes_all_but_keys_tenants_and_whole_configurations(self) -> None:
        client = session("operator")
        for method, path in writes():
            theirs = bool(OWNERS.match(path) or PLATFORMS.match(path))
            assert refused(client, method, path) is theirs, f"{method} {path}"

    def test_an_owner_changes_keys_too_and_no_tenants(self) -> None:
        client = session("owner")
        for method, path in writes():
            if not PLATFORMS.match(path):
                assert not refused(client, method, path), f"{method} {path}"
        assert refused(client, "delete", "/v1/tenants/acme")
        assert code(client.post("/v1/tenants", {"name": "more"})) == (403, "scope_missing")

    def test_what_an_operator_does_is_audited_under_their_name(self) -> None:
        body = {"name": "gold", "rate": 1, "burst": 1}
        assert session("operator").post("/v1/rate-limit-policies", body).status_code == 201
        entry = AuditEntry.objects.get(object_type="gateway.RateLimitPolicy")
        assert (entry.actor_kind, entry.actor, entry.tenant) == ("person", "operator", tenant("acme"))


class TestTheAdmin:
    def client(self, role: str) -> Client:
        client = Client()
        client.force_login(member(role).user)
        return client

    def url(self, model: type, page: str, *args: Any) -> str:
        return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("role", "policies", "people"), [("viewer", 403, 403), ("operator", 200, 403), ("owner", 200, 200)]
    )
    def test_who_may_open_the_form_of_what(self, role: str, policies: int, people: int) -> None:
        client = self.client(role)
        assert client.get(self.url(RateLimitPolicy, "add")).status_code == policies
        for model in (Member, ApiKey):
            assert client.get(self.url(model, "add")).status_code == people
            assert client.get(self.url(model, "changelist")).status_code == people
        assert client.get(self.url(Tenant, "add")).status_code == 403

    @pytest.mark.parametrize(
        ("role", "state"), [("viewer", "enabled"), ("operator", "draining"), ("owner", "draining")]
    )
    def test_who_may_drain(self, role: str, state: str) -> None:
        row = Service.objects.create(tenant=tenant("acme"), name="orders")
        self.client(role).post(self.url(Service, "changelist"), {"action": "drain", "_selected_action": [row.pk]})
        row.refresh_from_db()
        assert row.state == state

    @pytest.mark.parametrize("role", ["viewer", "operator"])
    def test_nobody_else_touches_members_and_keys(self, role: str) -> None:
        client, other = self.client(role), member("owner")
        key = create_key(SYSTEM, tenant("acme"), "a key", ["gateway:read"]).row
        body = {"username": other.user.username, "role": "viewer"}
        assert client.post(self.url(Member, "change", other.pk), body).status_code in {302, 403}
        assert client.post(self.url(Member, "delete", other.pk), {"post": "yes"}).status_code in {302, 403}
        client.post(self.url(ApiKey, "changelist"), {"action": "revoke", "_selected_action": [key.pk]})
        key.refresh_from_db()
        other.refresh_from_db()
        assert (other.role, key.revoked_at) == ("owner", None)

    def test_an_owner_gives_roles_and_takes_them_audited(self) -> None:
        client, other = self.client("owner"), member("viewer")
        assert client.post(self.url(Member, "change", other.pk), {"role": "operator"}).status_code == 302
        assert client.post(self.url(Member, "delete", other.pk), {"post": "yes"}).status_code == 302
        told = AuditEntry.objects.filter(object_type="registry.Member").order_by("pk")
        assert [(each.action, each.actor) for each in told] == [("changed", "owner"), ("deleted", "owner")]
        assert (told[0].before["role"], told[0].after["role"]) == ("viewer", "operator")
        assert told[0].tenant == tenant("acme")


class TestTheLastOwner:
    def client(self, as_root: bool) -> Client:
        self.last = member("owner")
        root = User.objects.create(username="root", is_staff=True, is_superuser=True)
        client = Client()
        client.force_login(root if as_root else self.last.user)
        return client

    @pytest.mark.parametrize("as_root", [True, False])
    def test_is_neither_removed_nor_made_less(self, as_root: bool) -> None:
        client = self.client(as_root)
        changed = client.post(f"/admin/registry/member/{self.last.pk}/change/", {"role": "viewer"})
        assert "last owner" in changed.content.decode()
        assert client.post(f"/admin/registry/member/{self.last.pk}/delete/", {"post": "yes"}).status_code == 403
        self.last.refresh_from_db()
        assert self.last.role == "owner"

    def test_is_not_deleted_as_a_person(self) -> None:
        client = self.client(as_root=True)
        path = f"/admin/auth/user/{self.last.user_id}/delete/"
        assert client.post(path, {"post": "yes"}).status_code == 403
        body = {"action": "delete_selected", "_selected_action": [self.last.user_id], "post": "yes"}
        client.post("/admin/auth/user/", body)
        assert Member.objects.filter(pk=self.last.pk).exists()

    @pytest.mark.parametrize("right", ["is_active", "is_staff"])
    def test_keeps_what_is_needed_to_log_in(self, right: str) -> None:
        client = self.client(as_root=True)
        path = f"/admin/auth/user/{self.last.user_id}/change/"
        body = {"username": "owner", "is_active": "on", "is_staff": "on"}
        del body[right]
        assert "last owner of a tenant" in client.post(path, body).content.decode()
        setattr(self.last.user, right, False)
        with pytest.raises(Problem, match="last owner"):
            save_person(self.last.user)
        self.last.user.refresh_from_db()
        assert getattr(self.last.user, right)
        member("owner", "second")
        assert client.post(path, body).status_code == 302
        self.last.user.refresh_from_db()
        assert not getattr(self.last.user, right)

    def test_who_cannot_log_in_any_more_can_still_be_changed(self) -> None:
        client = self.client(as_root=True)
        User.objects.filter(pk=self.last.user_id).update(is_active=False)
        body = {"username": "owner", "is_staff": "on", "first_name": "Ada"}
        assert client.post(f"/admin/auth/user/{self.last.user_id}/change/", body).status_code == 302
        self.last.user.refresh_from_db()
        assert self.last.user.first_name == "Ada"

    def test_gives_way_once_another_owner_may_log_in_and_no_sooner(self) -> None:
        first, second = member("owner"), member("owner", "second")
        User.objects.filter(pk=second.user_id).update(is_staff=False)
        with pytest.raises(Problem, match="last owner"):
            delete_person(first.user)
        User.objects.filter(pk=second.user_id).update(is_staff=True)
        delete_person(first.user)
        assert list(Member.objects.all()) == [second]

    def test_all_owners_at_once_stay_all(self) -> None:
        client = self.client(as_root=True)
        pks = [self.last.pk, member("owner", "second").pk]
        body = {"action": "delete_selected", "_selected_action": pks, "post": "yes"}
        assert client.post("/admin/registry/member/", body).status_code == 403
        assert Member.objects.filter(role="owner").count() == 2

    def test_one_of_two_may_go(self) -> None:
        first, second = member("owner"), member("owner", "second")
        remove_member(SYSTEM, first)
        with pytest.raises(Problem, match="last owner"):
            keep_an_owner(second)
        with pytest.raises(Problem, match="last owner"):
            remove_member(SYSTEM, second)

    def test_an_owner_who_cannot_log_in_is_none(self) -> None:
        first, second = member("owner"), member("owner", "second")
        User.objects.filter(pk=second.user_id).update(is_active=False)
        with pytest.raises(Problem, match="last owner"):
            remove_member(SYSTEM, first)
