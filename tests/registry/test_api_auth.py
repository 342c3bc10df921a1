from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from registry.live.keys import make
from registry.models import ApiKey, Member
from registry.services.changes import SYSTEM
from registry.services.keys import revoke_key
from tests.api import api, code, secret, tenant

pytestmark = pytest.mark.django_db


def test_it_asks_for_a_key() -> None:
    response = APIClient().get("/v1/routes")
    assert code(response) == (401, "api_key_missing")
    assert response["WWW-Authenticate"].startswith("Key")


@pytest.mark.parametrize("presented", ["", "nonsense", "anm_x_y_z", "ключ", "a" * 5000])
def test_it_refuses_what_is_no_key(presented: str) -> None:
    response = APIClient().get("/v1/routes", headers={"X-API-Key": presented.encode().decode("latin-1")})
    assert response.status_code == 401
    assert response.json()["code"] in {"api_key_invalid", "api_key_missing"}


def test_it_refuses_a_well_formed_key_that_nobody_made() -> None:
    assert code(APIClient().get("/v1/routes", headers={"X-API-Key": make()[1]})) == (401, "api_key_invalid")


def test_a_key_may_come_as_a_bearer_token() -> None:
    client = APIClient()
    assert client.get("/v1/routes", headers={"Authorization": f"Bearer {secret()}"}).status_code == 200


def test_several_keys_are_refused() -> None:
    key = secret()
    for headers, sentence in (
        ({"X-API-Key": key, "Authorization": f"Bearer {key}"}, "in X-API-Key or as Authorization: Bearer."),
        ({"X-API-Key": key, "Authorization": f"Basic eA==,bearer {key}"}, "in X-API-Key or as Authorization: Bearer."),
        ({"X-API-Key": f"{key},{key}"}, "not several."),  # as Django tells of two fields
        ({"Authorization": f"Bearer {key},Bearer {key}"}, "not several."),
    ):
        answer = APIClient().get("/v1/routes", headers=headers)
        assert code(answer) == (401, "api_key_invalid")
        assert answer.json()["detail"] == f"Send one API key, {sentence}"
    for stranger in ("Bearer of.someone.else", "Basic eA=="):
        headers = {"X-API-Key": key, "Authorization": stranger}
        assert APIClient().get("/v1/routes", headers=headers).status_code == 200


def test_an_expired_key_is_told_so() -> None:
    late = secret(expires_at=timezone.now() - timedelta(seconds=1))
    assert code(APIClient().get("/v1/routes", headers={"X-API-Key": late})) == (401, "api_key_expired")


def test_a_key_of_another_network_is_refused() -> None:
    near, far = secret(networks=["127.0.0.0/8"]), secret(networks=["10.0.0.0/8", "2001:db8::/32"])
    assert APIClient().get("/v1/routes", headers={"X-API-Key": near}).status_code == 200
    response = APIClient().get("/v1/routes", headers={"X-API-Key": far})
    assert code(response)[0] == 403
    assert far not in response.content.decode()


def test_a_revoked_key_is_no_key() -> None:
    key = secret()
    revoke_key(SYSTEM, ApiKey.objects.get())
    assert code(APIClient().get("/v1/routes", headers={"X-API-Key": key})) == (401, "api_key_invalid")


def test_a_key_of_a_switched_off_tenant_is_no_key() -> None:
    client = api("acme")
    tenant("acme").__class__.objects.filter(name="acme").update(active=False)
    assert code(client.get("/v1/routes")) == (401, "api_key_invalid")


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("get", "/v1/routes", ("registry:read", "gateway:write", "gateway:invoke")),
        ("post", "/v1/routes", ("gateway:read",)),
        ("get", "/v1/api-keys", ("registry:read", "registry:write")),
        ("post", "/v1/tenants", ("registry:read", "registry:write")),
        ("post", "/v1/services/orders/state", ("registry:read",)),
    ],
)
def test_a_scope_is_needed(method: str, path: str, scopes: tuple[str, ...]) -> None:
    assert code(getattr(api(scopes=scopes), method)(path, {})) == (403, "scope_missing")


def test_an_admin_key_of_the_default_tenant_acts_for_another() -> None:
    tenant("acme")
    client = api()
    made = client.post("/v1/rate-limit-policies", {"name": "gold", "rate": 1, "burst": 1}, headers={"X-Tenant": "acme"})
    assert made.status_code == 201
    assert client.get("/v1/rate-limit-policies").json()["count"] == 0
    assert client.get("/v1/rate-limit-policies", headers={"X-Tenant": "acme"}).json()["count"] == 1
    assert code(client.get("/v1/routes", headers={"X-Tenant": "nobody"})) == (404, "not_found")


@pytest.mark.parametrize(("of", "scopes"), [("acme", ("admin",)), ("default", ("gateway:read",))])
def test_no_other_key_acts_for_another_tenant(of: str, scopes: tuple[str, ...]) -> None:
    tenant("other")
    assert code(api(of, scopes).get("/v1/routes", headers={"X-Tenant": "other"})) == (403, "scope_missing")


def test_anyone_reads_where_no_key_is_required(settings) -> None:
    tenant()
    settings.ENV = settings.ENV.__class__(api_key_required=False)
    assert APIClient().get("/v1/routes").status_code == 200
    assert code(APIClient().post("/v1/routes", {})) == (403, "scope_missing")
    assert code(APIClient().get("/v1/routes", headers={"X-API-Key": make()[1]})) == (401, "api_key_invalid")


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", "/v1/health/configure"), ("post", "/v1/health/status"), ("post", "/v1/services/orders/orders-1/why")],
)
def test_a_method_that_a_view_does_not_take_is_refused_as_such(method: str, path: str) -> None:
    assert code(getattr(api(), method)(path, {})) == (405, "method_not_allowed")


class TestStaffSession:
    def client(self, role: str = "", *, of: str = "acme", superuser: bool = False, csrf: bool = False) -> APIClient:
        user = User.objects.create_user("ann", password="x", is_staff=True, is_superuser=superuser)
        if role:
            Member.objects.create(tenant=tenant(of), user=user, role=role)
        client = APIClient(enforce_csrf_checks=csrf)
        client.force_login(user)
        return client

    def test_a_viewer_reads_and_does_not_write(self) -> None:
        client = self.client("viewer")
        assert client.get("/v1/routes").status_code == 200
        assert code(client.post("/v1/routes", {})) == (403, "scope_missing")

    def test_an_operator_writes_and_does_not_see_keys(self) -> None:
        client = self.client("operator")
        made = client.post("/v1/rate-limit-policies", {"name": "gold", "rate": 1, "burst": 1})
        assert made.status_code == 201
        assert code(client.get("/v1/api-keys")) == (403, "scope_missing")

    def test_an_owner_makes_keys_but_no_tenants(self) -> None:
        client = self.client("owner")
        assert client.post("/v1/api-keys", {"name": "app", "scopes": ["gateway:invoke"]}).status_code == 201
        assert code(client.post("/v1/tenants", {"name": "more"})) == (403, "scope_missing")

    def test_an_owner_of_default_cannot_make_a_key_that_rules_the_installation(self) -> None:
        client = self.client("owner", of="default")
        made = client.post("/v1/api-keys", {"name": "app", "scopes": ["gateway:invoke"]})
        assert made.status_code == 201
        assert code(client.post("/v1/api-keys", {"name": "root", "scopes": ["admin"]})) == (403, "scope_missing")
        path = f"/v1/api-keys/{made.json()['public_id']}"
        assert code(client.patch(path, {"scopes": ["admin"]})) == (403, "scope_missing")

    def test_an_owner_elsewhere_may_make_an_admin_key_of_their_tenant(self) -> None:
        assert self.client("owner").post("/v1/api-keys", {"name": "all", "scopes": ["admin"]}).status_code == 201

    def test_a_superuser_chooses_any_tenant(self) -> None:
        tenant()
        tenant("acme")
        client = self.client(superuser=True)
        assert client.get("/v1/routes?tenant=acme").status_code == 200
        assert client.get("/v1/tenants").json()["count"] == 2

    def test_a_member_does_not_find_another_tenant(self) -> None:
        tenant("other")
        assert code(self.client("owner").get("/v1/routes?tenant=other")) == (404, "not_found")

    def test_who_is_a_member_of_nothing_sees_nothing(self) -> None:
        assert code(self.client().get("/v1/routes")) == (403, "scope_missing")

    def test_a_write_needs_the_csrf_token(self) -> None:
        client = self.client("operator", csrf=True)
        assert code(client.post("/v1/rate-limit-policies", {"name": "gold", "rate": 1, "burst": 1})) == (
            403,
            "csrf_failed",
        )

    def test_who_is_no_staff_is_nobody(self) -> None:
        client = APIClient()
        client.force_login(User.objects.create_user("bob"))
        assert code(client.get("/v1/routes")) == (401, "api_key_missing")
