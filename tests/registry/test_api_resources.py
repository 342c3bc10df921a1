from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from registry.models import ApiKey, AuditEntry, Tenant
from tests.api import api, code, pointers, tenant

pytestmark = pytest.mark.django_db


class TestApiKeys:
    def test_a_new_key_is_shown_once_and_works(self) -> None:
        client = api()
        made = client.post("/v1/api-keys", {"name": "mobile app", "scopes": ["gateway:read"], "expires_at": None})
        assert made.status_code == 201
        key = made.json()
        assert key["secret"].startswith(f"anm_{key['public_id']}_")
        assert APIClient().get("/v1/routes", headers={"X-API-Key": key["secret"]}).status_code == 200
        assert "secret" not in client.get(f"/v1/api-keys/{key['public_id']}").json()
        stored = str(ApiKey.objects.filter(public_id=key["public_id"]).values().get())
        assert key["secret"] not in stored
        assert "secret_hash" not in str(AuditEntry.objects.filter(object_type="registry.ApiKey").values())

    def test_deleting_a_key_revokes_it_and_keeps_the_row(self) -> None:
        client = api()
        key = client.post("/v1/api-keys", {"name": "app", "scopes": ["gateway:read"]}).json()
        assert client.delete(f"/v1/api-keys/{key['public_id']}").status_code == 204
        assert code(APIClient().get("/v1/routes", headers={"X-API-Key": key["secret"]})) == (401, "api_key_invalid")
        assert [row["public_id"] for row in client.get("/v1/api-keys?revoked=true").json()["results"]] == [
            key["public_id"]
        ]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"scopes": ["gateway:read"]}, "/name"),
            ({"name": "", "scopes": ["gateway:read"]}, "/name"),
            ({"name": 7, "scopes": ["gateway:read"]}, "/name"),
            ({"name": "a"}, "/scopes"),
            ({"name": "a", "scopes": []}, "/scopes"),
            ({"name": "a", "scopes": "gateway:read"}, "/scopes"),
            ({"name": "a", "scopes": ["gateway:read", "root"]}, "/scopes/1"),
            ({"name": "a", "scopes": ["gateway:read"], "expires_at": "yesterday"}, "/expires_at"),
            ({"name": "a", "scopes": ["gateway:read"], "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
            ({"name": "a", "scopes": ["gateway:read"], "expires_at": 5}, "/expires_at"),
            ({"name": "a", "scopes": ["gateway:read"], "secret_hash": "x"}, "/secret_hash"),
            ({"name": "a", "scopes": ["gateway:read"], "secret": "x"}, "/secret"),
            (rb'{"name": "a\ud800", "scopes": ["gateway:read"]}', "/name"),
            (rb'{"name": "a\u0000", "scopes": ["gateway:read"]}', "/name"),
            ([], ""),
            ("text", ""),
        ],
    )
    def test_it_refuses_a_bad_body(self, body: Any, pointer: str) -> None:
        client = api()
        raw = body if isinstance(body, bytes) else json.dumps(body)
        response = client.post("/v1/api-keys", raw, content_type="application/json")
        assert code(response) == (422, "validation_failed")
        assert pointers(response) == [pointer]
        assert ApiKey.objects.count() == 1

    def test_another_tenants_key_is_not_found(self) -> None:
        theirs = api("acme")
        key = theirs.post("/v1/api-keys", {"name": "app", "scopes": ["gateway:read"]}).json()
        for method in ("get", "patch", "delete"):
            assert code(getattr(api(), method)(f"/v1/api-keys/{key['public_id']}", {})) == (404, "not_found")
        assert theirs.get("/v1/api-keys").json()["count"] == 2


class TestTenants:
    def test_who_runs_the_installation_makes_tenants_with_hosts(self) -> None:
        client = api()
        made = client.post("/v1/tenants", {"name": "acme", "title": "Acme", "hosts": ["api.acme.com", "*.acme.dev"]})
        assert (made.status_code, made.json()["hosts"]) == (201, ["*.acme.dev", "api.acme.com"])
        changed = client.patch("/v1/tenants/acme", {"hosts": ["api.acme.com"]})
        assert changed.json()["hosts"] == ["api.acme.com"]
        entry = AuditEntry.objects.filter(object_type="registry.Tenant").first()
        assert entry is not None
        assert [len(side["hosts"]) for side in (entry.before, entry.after)] == [2, 1]

    def test_a_host_belongs_to_one_tenant(self) -> None:
        client = api()
        client.post("/v1/tenants", {"name": "acme", "hosts": ["api.acme.com"]})
        assert code(client.post("/v1/tenants", {"name": "other", "hosts": ["api.acme.com"]})) == (409, "conflict")
        assert not Tenant.objects.filter(name="other").exists()
        client.post("/v1/tenants", {"name": "other"})
        assert code(client.patch("/v1/tenants/other", {"hosts": ["api.acme.com"]})) == (409, "conflict")

    def test_a_name_is_taken_once(self) -> None:
        client = api()
        assert code(client.post("/v1/tenants", {"name": "default"})) == (409, "conflict")

    @pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a" * 64, "a.b", 5, None, ["a"]])
    def test_a_name_is_a_label(self, name: Any) -> None:
        response = api().post("/v1/tenants", {"name": name})
        assert code(response) == (422, "validation_failed")
        assert set(pointers(response)) == {"/name"}

    def test_everybody_else_sees_only_their_own(self) -> None:
        tenant()
        assert [row["name"] for row in api("acme").get("/v1/tenants").json()["results"]] == ["acme"]
        assert code(api("acme").get("/v1/tenants/default")) == (404, "not_found")
        assert code(api("acme").patch("/v1/tenants/acme", {"hosts": ["evil.com"]})) == (403, "scope_missing")

    def test_default_stays(self) -> None:
        client = api()
        assert code(client.delete("/v1/tenants/default")) == (409, "conflict")
        assert code(client.patch("/v1/tenants/default", {"active": False})) == (409, "conflict")

    def test_a_name_never_changes(self) -> None:
        assert pointers(api().patch("/v1/tenants/default", {"name": "other"})) == ["/name"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "status", "expected"),
        [
            (b"{", 400, "malformed_request"),
            (b"", 422, "validation_failed"),
            (b'{"name": NaN}', 400, "malformed_request"),
            (b'{"name": "a", "name": "b"}', 400, "malformed_request"),
            (b"\xff\xfe", 400, "malformed_request"),
            (b"[" * 100_000, 400, "malformed_request"),
            (b'{"name": "' + b"a" * 2_000_000 + b'"}', 413, "payload_too_large"),
        ],
    )
    def test_a_body_that_cannot_be_read(self, body: bytes, status: int, expected: str) -> None:
        response = api().post("/v1/rate-limit-policies", data=body, content_type="application/json")
        assert code(response) == (status, expected)

    def test_a_form_is_no_json(self) -> None:
        response = api().post("/v1/routes", data=b"a=b", content_type="application/x-www-form-urlencoded")
        assert code(response) == (415, "unsupported_media_type")

    def test_a_method_that_nobody_takes(self) -> None:
        response = api().put("/v1/routes", {})
        assert code(response) == (405, "method_not_allowed")
        assert "POST" in response["Allow"]

    @pytest.mark.parametrize("path", ["/v1/nothing", "/v1/routes/nothing", "/v1/services/A_B/x/why", "/v1/routes/a/b"])
    def test_an_address_with_nothing_behind(self, path: str) -> None:
        assert code(api().get(path)) == (404, "not_found")

    @pytest.mark.parametrize("path", ["/v1", "/v1/nope", "/api", "/api/nope"])
    def test_an_address_of_the_api_is_refused_in_json_whatever_is_asked_for(self, path: str) -> None:
        assert code(Client().get(path, headers={"Accept": "text/html"})) == (404, "not_found")

    @pytest.mark.parametrize(
        "accept", ["application/json", "application/problem+json", "text/html;q=0.5, application/json"]
    )
    def test_who_would_rather_read_json_is_refused_in_json(self, accept: str) -> None:
        assert code(Client().get("/nope", headers={"Accept": accept})) == (404, "not_found")

    @pytest.mark.parametrize("accept", [None, "*/*", "image/png", "text/html,application/xml;q=0.9,*/*;q=0.8"])
    def test_everybody_else_is_refused_with_a_page(self, accept: str | None) -> None:
        response = Client().get("/nope", headers={"Accept": accept} if accept else {})
        assert response.status_code == 404
        assert response["Content-Type"].startswith("text/html")

    def test_a_page_that_is_not_there(self) -> None:
        assert code(api().get("/v1/routes?page=9")) == (404, "not_found")

    def test_it_is_one_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        client = api()
        with caplog.at_level(logging.INFO):
            response = client.post("/v1/routes", {"name": 5}, headers={"X-Request-ID": "ask-me"})
        assert response["X-Request-ID"] == "ask-me"
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert "validation_failed" in lines[0]
        assert "ask-me" in lines[0]

    def test_a_request_id_that_could_break_a_log_line_is_replaced(self) -> None:
        response = api().get("/v1/routes", headers={"X-Request-ID": "a\tb" + "c" * 100})
        assert len(response["X-Request-ID"]) == 32

    def test_a_browser_that_wants_html_gets_json(self) -> None:
        assert api().get("/v1/routes", headers={"Accept": "text/html"}).json()["count"] == 0

    def test_a_defect_is_a_problem_too(self, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
        client = api()
        client.raise_request_exception = False
        monkeypatch.setattr("registry.views.Tenants.get_queryset", lambda self: 1 / 0)
        response = client.get("/v1/tenants")
        assert code(response) == (500, "internal_error")
        assert "ZeroDivisionError" in caplog.text

    def test_a_page_that_is_not_for_this_person_is_one_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        client = Client()
        client.force_login(User.objects.create_user("visitor", password="a good password", is_staff=True))
        assert client.get("/admin/registry/tenant/").status_code == 403
        (line,) = [record for record in caplog.records if "/admin/registry/tenant/" in record.getMessage()]
        assert line.exc_info is None
        assert " 403 " in line.getMessage()
