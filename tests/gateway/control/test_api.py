from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gateway.forms import RouteForm
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteTarget, Upstream
from registry.models import ApiKey, AuditEntry, Service, TenantHost
from tests.api import api, code, pointers, tenant

pytestmark = pytest.mark.django_db

ORDERS: dict[str, Any] = {
    "name": "orders",
    "hosts": [],
    "path": "/orders",
    "path_type": "prefix",
    "methods": [],
    "headers": [],
    "query": [],
    "priority": 0,
    "service": "orders",
    "strip_prefix": True,
    "auth_required": True,
    "scopes": [],
    "rate_limit_policy": "gold",
    "timeout_seconds": 30,
    "retries": 1,
    "enabled": True,
}
WHOLE = {"service": "orders", "weight": 100, "version": "", "tags": [], "header": None, "cookie": None}
GOLD = {"name": "gold", "rate": 100.0, "burst": 200, "by": "key"}
BREAKER: dict[str, Any] = {
    "name": "default",
    "window_seconds": 10,
    "minimum_calls": 20,
    "failure_rate": 0.5,
    "consecutive_failures": 5,
    "slow_call_seconds": None,
    "slow_call_rate": 1.0,
    "open_seconds": 60,
    "half_open_calls": 3,
}


EXPRESSION: dict[str, Any] = {"name": "large", "service": "orders", "path_type": "regex"}
LARGE = ".*(?:x{700})?"
"""More than a third of what one host has room for."""


class TestRoutes:
    def test_the_body_of_the_contract_makes_a_route(self) -> None:
        client = api()
        assert client.post("/v1/rate-limit-policies", GOLD).status_code == 201
        made = client.post("/v1/routes", ORDERS)
        assert made.status_code == 201, made.content
        body = made.json()
        assert {name: body[name] for name in ORDERS} == ORDERS
        assert body["targets"] == [WHOLE]
        assert Service.objects.filter(tenant__name="default", name="orders").exists()
        entry = AuditEntry.objects.get(object_type="gateway.Route")
        assert (entry.action, entry.actor_kind, entry.request_id) == ("created", "key", made["X-Request-ID"])

    def test_what_was_read_can_be_sent_again(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        body = client.get("/v1/routes/orders").json()
        assert client.put("/v1/routes/orders", body).json() == body
        assert AuditEntry.objects.filter(object_type="gateway.Route").count() == 1

    def test_a_whole_body_sets_what_it_leaves_out_to_the_default(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders", "priority": 7, "methods": ["GET"]})
        body = client.put("/v1/routes/orders", {"name": "orders", "service": "orders"}).json()
        assert (body["priority"], body["methods"]) == (0, [])

    def test_a_patch_touches_only_what_it_names(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders", "priority": 7})
        body = client.patch("/v1/routes/orders", {"path": "/o"}).json()
        assert (body["path"], body["priority"], body["service"]) == ("/o", 7, "orders")

    def test_targets_share_the_requests(self) -> None:
        targets = [{"service": "orders", "weight": 90, "version": ">=2"}, {"service": "old-orders", "weight": 10}]
        client = api()
        body = client.post("/v1/routes", {"name": "orders", "targets": targets}).json()
        assert body["service"] is None
        assert [each["weight"] for each in body["targets"]] == [90, 10]
        client.patch("/v1/routes/orders", {"service": "orders"})
        assert RouteTarget.objects.count() == 1

    def test_a_patch_fills_in_what_a_target_leaves_out(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        answer = client.patch("/v1/routes/orders", {"targets": [{"service": "web"}]})
        assert answer.status_code == 200, answer.content
        assert answer.json()["targets"] == [{**WHOLE, "service": "web"}]

    @pytest.mark.parametrize(
        ("wrong", "pointer"),
        [
            ({"targets": [{"weight": 5}]}, "/targets/0/service"),
            ({"targets": [{"service": "web"}, {"service": "web"}]}, "/targets"),
            ({"headers": [{"name": "X-A"}]}, "/headers/0/value"),
            ({"headers": [{"value": "b"}]}, "/headers/0/name"),
            ({"query": [{}]}, "/query/0/name"),
        ],
    )
    def test_a_patch_refuses_a_part_that_is_not_whole(self, wrong: dict[str, Any], pointer: str) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        response = client.patch("/v1/routes/orders", wrong)
        assert code(response) == (422, "validation_failed")
        assert pointers(response)[0] == pointer

    @pytest.mark.parametrize(
        ("wrong", "pointer"),
        [
            ({"name": "A B"}, "/name"),
            ({"name": None}, "/name"),
            ({"name": "explain"}, "/name"),
            ({"hosts": "api.example.com"}, "/hosts"),
            ({"hosts": ["api.example.com:80"]}, "/hosts/0"),
            ({"hosts": ["a.com", "*.*.com"]}, "/hosts/1"),
            ({"hosts": [5]}, "/hosts/0"),
            ({"path": "orders"}, "/path"),
            ({"path": "/a%2Fb"}, "/path"),
            ({"path": "/a?b=c"}, "/path"),
            ({"path": "//a"}, "/path"),
            ({"path": "/a//b"}, "/path"),
            ({"path": "/a//.*", "path_type": "regex"}, "/path"),
            ({"path": "/a/../b"}, "/path"),
            ({"path": "/a/%2E%2e/b"}, "/path"),
            ({"path": "/%2e"}, "/path"),
            ({"hosts": ["999.1"]}, "/hosts/0"),
            ({"hosts": ["*.1.2.3.4"]}, "/hosts/0"),
            ({"mirror": {"service": "a\0"}}, "/mirror"),
            ({"path": "(", "path_type": "regex"}, "/path"),
            ({"path_type": "glob"}, "/path_type"),
            ({"methods": ["get"]}, "/methods/0"),
            ({"methods": ["GET", "CONNECT"]}, "/methods/1"),
            ({"methods": ["TRACE"]}, "/methods/0"),
            ({"methods": ["G T"]}, "/methods/0"),
            ({"headers": [{"name": "X A", "value": ""}]}, "/headers"),
            ({"headers": [{"name": "X-Consumer-ID", "value": "boss"}]}, "/headers"),
            (
                {"targets": [{"service": "b"}, {"service": "c", "header": {"name": "X-Consumer-ID", "value": "a"}}]},
                "/targets/1/header",
            ),
            ({"headers": [{"name": "X-A"}]}, "/headers/0/value"),
            ({"headers": {"X-A": "b"}}, "/headers"),
            ({"query": [{"name": "a", "value": "b", "more": 1}]}, "/query/0/more"),
            ({"priority": "7"}, "/priority"),
            ({"priority": 7_000_000}, "/priority"),
            ({"priority": True}, "/priority"),
            ({"service": "Orders"}, "/service"),
            ({"service": "register"}, "/service"),
            ({"service": None}, "/service"),
            ({"targets": []}, "/targets"),
            ({"targets": [{"service": "b"}]}, "/service"),
            ({"targets": [{"service": "orders", "version": ">=2"}]}, "/service"),
            ({"targets": [{"service": "orders"}, {"service": "b"}]}, "/service"),
            ({"service": None, "targets": [{"service": "b", "weight": 0}]}, "/targets"),
            ({"service": None, "targets": [{"service": "b", "weight": -1}]}, "/targets/0/weight"),
            ({"service": None, "targets": [{"service": "b", "version": "new"}]}, "/targets/0/version"),
            ({"service": None, "targets": [{"service": "b"}, {"service": "b"}]}, "/targets"),
            ({"strip_prefix": "yes"}, "/strip_prefix"),
            ({"auth_required": 1}, "/auth_required"),
            ({"scopes": ["root"]}, "/scopes/0"),
            ({"rate_limit_policy": "nobody"}, "/rate_limit_policy"),
            ({"rate_limit_policy": 5}, "/rate_limit_policy"),
            ({"timeout_seconds": 0}, "/timeout_seconds"),
            ({"timeout_seconds": "30"}, "/timeout_seconds"),
            ({"retries": 11}, "/retries"),
            ({"retries": 1.5}, "/retries"),
            ({"enabled": None}, "/enabled"),
            ({"upstream": "x"}, "/upstream"),
        ],
    )
    def test_it_refuses_a_bad_field(self, wrong: dict[str, Any], pointer: str) -> None:
        response = api().post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders", **wrong})
        assert code(response) == (422, "validation_failed")
        assert pointers(response) == [pointer]
        assert not Route.objects.exists()
        assert not Service.objects.exists()

    def test_the_admin_refuses_a_name_that_is_an_address_too(self) -> None:
        assert "name" in RouteForm({"name": "explain"}).errors
        assert "name" not in RouteForm({"name": "explains"}).errors

    @pytest.mark.parametrize("path_type", ["exact", "prefix", "regex"])
    def test_a_path_with_a_double_slash_is_refused_by_row_and_form_too(self, path_type: str) -> None:
        fields = {"name": "orders", "path": "/a//b", "path_type": path_type}
        with pytest.raises(ValidationError) as refused:
            Route(tenant=tenant(), **fields).full_clean()
        assert [*refused.value.message_dict] == ["path"]
        form = RouteForm({"tenant": tenant().pk, "timeout_seconds": 30, "retries": 1, "priority": 0, **fields})
        assert form.errors["path"] == ["A path has no //: some servers read it as one slash, and others as two."]

    def test_an_expression_that_is_too_large_is_refused(self) -> None:
        refused = api().post("/v1/routes", {**EXPRESSION, "path": "/.*" + "[ab]{999}" * 2 + "/[ab]{40}"})
        assert code(refused) == (422, "validation_failed")
        assert pointers(refused) == ["/path"]
        assert "too large" in refused.json()["errors"][0]["detail"]

    def test_an_expression_for_which_there_is_no_room_beside_the_others_of_its_host_is_refused(self) -> None:
        client = api()
        for name in ("a", "b"):
            assert (
                client.post("/v1/routes", {**EXPRESSION, "name": name, "path": f"/t{LARGE}{name}"}).status_code == 201
            )
        third = {**EXPRESSION, "name": "c", "path": f"/t{LARGE}c"}
        refused = client.post("/v1/routes", third)
        assert (code(refused), pointers(refused)) == ((422, "validation_failed"), ["/path"])
        assert "no room" in refused.json()["errors"][0]["detail"]
        # Each of these keeps it apart from the two others.
        for fields in ({"path": f"/u{LARGE}c"}, {"hosts": ["b.example"]}, {"enabled": False}):
            assert client.post("/v1/routes", {**third, **fields}).status_code == 201
            client.delete("/v1/routes/c")
        client.post("/v1/routes", {**third, "enabled": False})
        assert pointers(client.patch("/v1/routes/c", {"enabled": True})) == ["/path"]
        assert client.patch("/v1/routes/a", {"path": f"/t{LARGE}x"}).status_code == 200
        assert api("acme").post("/v1/routes", third).status_code == 201
        client.delete("/v1/routes/b")
        assert client.patch("/v1/routes/c", {"enabled": True}).status_code == 200

    def test_explain_says_that_a_path_is_too_long_to_be_tried(self) -> None:
        api().post("/v1/routes", {**EXPRESSION, "path": f"/t{LARGE}"})
        answer = api().post("/v1/routes/explain", {"path": "/t" + "a" * 1900}).json()
        assert (answer["status"], answer["code"], answer["route"]) == (414, "uri_too_long", None)
        assert "too long for the many regular expressions" in answer["sentence"]

    def test_the_admin_refuses_it_too(self) -> None:
        client = api()
        for name in ("a", "b"):
            client.post("/v1/routes", {**EXPRESSION, "name": name, "path": f"/t{LARGE}{name}"})
        fields = {"name": "c", "path": f"/t{LARGE}c", "path_type": "regex", "enabled": True}
        form = RouteForm({"tenant": tenant().pk, "timeout_seconds": 30, "retries": 1, "priority": 0, **fields})
        assert "no room" in form.errors["path"][0]

    def test_a_name_is_taken_once_in_a_tenant(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        assert code(client.post("/v1/routes", {"name": "orders", "service": "orders"})) == (409, "conflict")
        assert api("acme").post("/v1/routes", {"name": "orders", "service": "orders"}).status_code == 201

    def test_another_tenants_routes_policies_and_services_stay_out_of_reach(self) -> None:
        theirs, ours = api("acme"), api()
        theirs.post("/v1/rate-limit-policies", GOLD)
        theirs.post("/v1/routes", {**ORDERS, "name": "secret"})
        assert ours.get("/v1/routes").json()["count"] == 0
        for method in ("get", "put", "patch", "delete"):
            assert code(getattr(ours, method)("/v1/routes/secret", {})) == (404, "not_found")
        assert pointers(ours.post("/v1/routes", ORDERS)) == ["/rate_limit_policy"]
        ours.post("/v1/routes", {"name": "orders", "service": "orders"})
        assert RouteTarget.objects.get(route__name="orders").service.tenant.name == "default"

    def test_a_host_of_another_tenant_is_refused(self) -> None:
        api().post("/v1/tenants", {"name": "acme", "hosts": ["*.acme.com"]})
        body = {"name": "orders", "service": "orders", "hosts": ["api.acme.com"]}
        assert pointers(api().post("/v1/routes", body)) == ["/hosts"]
        assert api("acme").post("/v1/routes", body).status_code == 201
        assert pointers(api("acme").post("/v1/routes", {**body, "name": "b", "hosts": ["b.com"]})) == ["/hosts"]

    def test_a_list_costs_the_same_for_one_route_and_for_fifty(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", GOLD)
        counts = []
        for number in range(50):
            client.post("/v1/routes", {**ORDERS, "name": f"orders-{number}"})
            if number in {0, 49}:
                with CaptureQueriesContext(
                    connection,
                ) as queries:
                    assert client.get("/v1/routes").json()["count"] == number + 1
                counts.append(len(queries))
        assert counts[0] == counts[1] <= 8

    def test_a_list_may_be_narrowed(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        versions = [{"service": "web", "version": ">=2"}, {"service": "web", "version": "<2"}]
        client.post("/v1/routes", {"name": "web", "targets": versions, "enabled": False})
        for query, expected in {"service=web": ["web"], "enabled=true": ["orders"], "path=/nothing": []}.items():
            assert [row["name"] for row in client.get(f"/v1/routes?{query}").json()["results"]] == expected
        assert [row["name"] for row in client.get("/v1/routes?page_size=1&page=2").json()["results"]] == ["web"]

    @pytest.mark.parametrize(
        "part", ['"\\ud800": 1', '"targets": [{"service": "a", "\\ud800": 1}]', '"cors": {"\\ud800": 1}']
    )
    def test_a_field_named_by_half_a_character_is_refused_as_any_other(self, part: str) -> None:
        body = f'{{"name": "a", "service": "a", {part}}}'
        refused = api().post("/v1/routes", body, content_type="application/json")
        assert code(refused) == (422, "validation_failed")

    def test_deleting_a_route_leaves_its_service(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "service": "orders"})
        assert client.delete("/v1/routes/orders").status_code == 204
        assert Service.objects.count() == 1
        assert AuditEntry.objects.filter(action="deleted", object_label="orders").count() == 1


class TestPolicies:
    def test_the_bodies_of_the_contract(self) -> None:
        client = api()
        made = client.post("/v1/breaker-policies", BREAKER).json()
        assert {name: made[name] for name in BREAKER} == BREAKER
        body = {"service": "orders", "load_balancing": "round_robin", "breaker_policy": "default"}
        made = client.post("/v1/upstreams", body).json()
        assert {name: made[name] for name in body} == body
        assert client.get("/v1/upstreams/orders").json() == made
        assert code(client.post("/v1/upstreams", body)) == (409, "conflict")

    def test_a_policy_in_use_stays(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", GOLD)
        client.post("/v1/routes", ORDERS)
        response = client.delete("/v1/rate-limit-policies/gold")
        assert code(response) == (409, "conflict")
        assert "route orders" in response.json()["detail"]

    def test_an_upstream_stays_with_its_service(self) -> None:
        client = api()
        client.post("/v1/upstreams", {"service": "orders"})
        assert client.patch("/v1/upstreams/orders", {"load_balancing": "p2c"}).json()["load_balancing"] == "p2c"
        assert pointers(client.patch("/v1/upstreams/orders", {"service": "b"})) == ["/service"]
        assert client.delete("/v1/upstreams/orders").status_code == 204
        assert not Upstream.objects.exists()

    @pytest.mark.parametrize(
        ("wrong", "pointer"),
        [
            ({"rate": 0}, "/rate"),
            ({"rate": "100"}, "/rate"),
            ({"rate": None}, "/rate"),
            ({"burst": 0}, "/burst"),
            ({"burst": 1.5}, "/burst"),
            ({"by": "moon"}, "/by"),
            ({"by": "header:"}, "/by"),
            ({"by": "header:a b"}, "/by"),
            ({"by": "header:X_Consumer-Id"}, "/by"),
            ({"per": "minute"}, "/per"),
        ],
    )
    def test_it_refuses_a_bad_rate_limit(self, wrong: dict[str, Any], pointer: str) -> None:
        response = api().post("/v1/rate-limit-policies", {**GOLD, **wrong})
        assert code(response) == (422, "validation_failed")
        assert pointers(response) == [pointer]
        assert not RateLimitPolicy.objects.exists()

    @pytest.mark.parametrize(
        ("wrong", "pointer"),
        [
            ({"failure_rate": 50}, "/failure_rate"),
            ({"failure_rate": 0}, "/failure_rate"),
            ({"window_seconds": 0.5}, "/window_seconds"),
            ({"slow_call_seconds": 0}, "/slow_call_seconds"),
            ({"half_open_calls": 0}, "/half_open_calls"),
            ({"minimum_calls": 10**30}, "/minimum_calls"),
            ({"slow_call_seconds": 10**400}, "/slow_call_seconds"),
        ],
    )
    def test_it_refuses_a_bad_breaker_policy(self, wrong: dict[str, Any], pointer: str) -> None:
        response = api().post("/v1/breaker-policies", {**BREAKER, **wrong})
        assert code(response) == (422, "validation_failed")
        assert pointers(response) == [pointer]
        assert not BreakerPolicy.objects.exists()

    @pytest.mark.parametrize("path", ["rate-limit-policies", "breaker-policies", "upstreams"])
    def test_lists_hold_only_the_tenants_own(self, path: str) -> None:
        tenant("acme")
        body = {"rate-limit-policies": GOLD, "breaker-policies": BREAKER, "upstreams": {"service": "orders"}}[path]
        api("acme").post(f"/v1/{path}", body)
        assert api().get(f"/v1/{path}").json() == {"count": 0, "next": None, "previous": None, "results": []}


class TestExplain:
    def test_it_says_which_route_takes_a_request_and_why_the_others_do_not(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
        client.post("/v1/routes", {"name": "all", "path": "/", "service": "web"})
        client.post("/v1/routes", {"name": "post", "path": "/orders", "methods": ["POST"], "service": "web"})
        found = client.post("/v1/routes/explain", {"host": "any.example.com:8080", "path": "/orders/7?a=b"}).json()
        assert (found["route"], found["upstream_path"], found["tenant"]) == ("orders", "/7", "default")
        assert {each["route"]: each["takes_it"] for each in found["verdicts"]} == {
            "orders": True,
            "all": False,
            "post": False,
        }
        assert all(each["sentence"] for each in found["verdicts"])

    def test_it_tells_what_else_would_become_of_the_request(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", GOLD)
        client.post(
            "/v1/routes",
            {
                "name": "orders",
                "path": "/orders",
                "rate_limit_policy": "gold",
                "scopes": ["gateway:read"],
                "rewrite": {"host": "orders.internal", "path": "/v2"},
                "targets": [
                    {"service": "orders", "weight": 1},
                    {"service": "beta", "header": {"name": "X-Beta", "value": "1"}},
                ],
            },
        )
        made = client.post("/v1/api-keys", {"name": "k", "scopes": ["gateway:invoke"]}).json()
        asked = {"path": "/orders/7", "headers": [{"name": "X-Beta", "value": "1"}], "key": made["secret"]}
        found = client.post("/v1/routes/explain", asked).json()
        assert (found["upstream_host"], found["upstream_path"]) == ("orders.internal", "/v2/7")
        assert [limit["name"] for limit in found["rate_limits"]] == ["gold"]
        assert {each["service"]: each["chosen"] for each in found["destinations"]} == {"orders": False, "beta": True}
        assert found["admission"]["admitted"] is False
        assert found["admission"]["sentence"] == "The key needs scope gateway:read here."
        assert made["secret"] not in str(found)
        found = client.post("/v1/routes/explain", {**asked, "key": made["public_id"], "headers": []}).json()
        assert {each["service"]: each["chosen"] for each in found["destinations"]} == {"orders": True, "beta": False}
        assert found["policies"]["rewrite"] == {"host": "orders.internal", "path": "/v2"}
        wrong = client.post("/v1/routes/explain", {**asked, "key": made["secret"][:-7] + "x" + made["secret"][-6:]})
        assert wrong.json()["admission"]["admitted"] is False

    def test_it_judges_the_key_that_is_among_the_headers_and_tells_it_nobody(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", GOLD)
        route = {"name": "orders", "path": "/orders", "service": "orders", "auth": {"query_parameter": "key"}}
        client.post("/v1/routes", route)
        made = client.post(
            "/v1/api-keys", {"name": "k", "scopes": ["gateway:invoke"], "rate_limit_policy": "gold"}
        ).json()
        key, other = made["secret"], client.post("/v1/api-keys", {"name": "o", "scopes": ["registry:read"]}).json()
        own, bearer = {"name": "X-API-Key", "value": key}, {"name": "Authorization", "value": f"Bearer {key}"}
        for asked, admitted, sentence in (
            ({"headers": [own]}, True, "The key k may use the route."),
            ({"headers": [bearer]}, True, "The key k may use the route."),
            ({"path": f"/orders?key={key}"}, True, "The key k may use the route."),
            ({"headers": [own], "key": other["public_id"]}, False, "The key needs scope gateway:invoke here."),
            ({"headers": [own, bearer]}, False, "Send one API key, in X-API-Key or as Authorization: Bearer."),
            ({"headers": [own, own]}, False, "Send one API key, not several."),
            (
                {"path": f"/orders?key={key}", "headers": [own]},
                False,
                "Send one API key, in a field or in the query, not several.",
            ),
            ({"headers": [{**own, "value": made["public_id"]}]}, False, "This API key is not known, or was revoked."),
            ({"headers": [{**own, "value": ""}]}, None, "The caller needs an API key with gateway:invoke."),
        ):
            found = client.post("/v1/routes/explain", {"path": "/orders", **asked}).json()
            assert (found["admission"]["admitted"], found["admission"]["sentence"]) == (admitted, sentence), asked
            assert (found["rate_limits"][0]["name"] == "gold") == bool(admitted)
            assert key not in str(found)
        client.patch("/v1/routes/orders", {"auth": {"methods": ["key", "jwt"]}})
        token = {"name": "Authorization", "value": "Bearer a.b.c"}
        found = client.post("/v1/routes/explain", {"path": "/orders", "headers": [token]}).json()
        assert (found["admission"]["admitted"], found["status"]) == (False, 401)
        assert found["admission"]["sentence"] == "This is no JSON Web Token."
        assert key not in caplog.text
        assert ApiKey.objects.get(public_id=made["public_id"]).last_used_at is None

    def test_it_tells_where_a_redirect_leads(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "old", "path": "/old", "redirect": {"status": 308, "path": "/new"}})
        found = client.post("/v1/routes/explain", {"host": "shop.example", "path": "/old/a?b=c"}).json()
        assert (found["redirect"], found["upstream_path"]) == ("http://shop.example/new/a?b=c", None)
        assert found["admission"]["auth_required"] is False
        client.patch("/v1/routes/old", {"auth": {"query_parameter": "key"}})
        found = client.post("/v1/routes/explain", {"host": "shop.example", "path": "/old/a?k%65y=secret&b=c"}).json()
        assert found["redirect"] == "http://shop.example/new/a?b=c"

    def test_it_says_so_when_nothing_matches(self) -> None:
        found = api().post("/v1/routes/explain", {"path": "/nowhere"}).json()
        assert (found["route"], found["targets"]) == (None, [])
        assert found["sentence"]

    def test_it_tells_what_the_gateway_refuses_or_answers_itself(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "orders", "path": "/", "service": "orders", "auth_required": False})
        loop = [{"name": "Via", "value": "1.0 edge, 1.1 anumate"}]
        for body, expected in (
            ({"method": "TRACE"}, (405, "method_not_allowed")),
            ({"method": "CONNECT"}, (405, "method_not_allowed")),
            ({"headers": loop}, (508, "loop_detected")),
            ({"path": "/-/readyz"}, (200, None)),
            ({"path": "/-/nowhere"}, (404, "not_found")),
        ):
            found = client.post("/v1/routes/explain", body).json()
            assert (found["status"], found["code"], found["route"]) == (*expected, None), body
            assert not any(each["takes_it"] for each in found["verdicts"])
        found = client.post("/v1/routes/explain", {"path": "/", "host": "Any.example:80"}).json()
        assert (found["route"], found["status"], found["code"]) == ("orders", None, None)
        assert code(client.post("/v1/routes/explain", {"path": "/#a"})) == (400, "malformed_request")

    def test_a_key_is_no_way_into_a_route_for_tokens(self) -> None:
        client = api()
        client.post("/v1/routes", {"name": "tokens", "path": "/", "service": "a", "auth": {"methods": ["jwt"]}})
        made = client.post("/v1/api-keys", {"name": "k", "scopes": ["gateway:invoke"]}).json()
        found = client.post("/v1/routes/explain", {"key": made["secret"]}).json()
        assert (found["admission"]["admitted"], found["code"]) == (False, "api_key_missing")
        found = client.post("/v1/routes/explain", {}).json()
        assert found["admission"]["admitted"] is None
        assert found["admission"]["sentence"] == "The caller needs a JWT with gateway:invoke."

    def test_a_host_of_another_tenant_is_not_for_these_routes(self) -> None:
        TenantHost.objects.create(tenant=tenant("acme"), host="acme.example")
        client = api()
        client.post("/v1/routes", {"name": "orders", "path": "/", "service": "orders"})
        for asked in ({"host": "ACME.example:80"}, {"headers": [{"name": "Host", "value": "acme.example"}]}):
            found = client.post("/v1/routes/explain", asked).json()
            assert (found["route"], found["code"], found["verdicts"]) == (None, "route_not_found", [])
            assert found["sentence"] == "Requests for acme.example do not come to tenant default."

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"path": "/a?b c"}, (400, "malformed_request")),
            ({"host": "user@a.example"}, (400, "malformed_request")),
            ({"headers": [{"name": "A b", "value": ""}]}, (422, "validation_failed")),
            ({"path": "/a%00b"}, (400, "malformed_request")),
            ({"path": "a"}, (400, "malformed_request")),
            ({"method": "get"}, (422, "validation_failed")),
            ({"verb": "GET"}, (422, "validation_failed")),
        ],
    )
    def test_it_refuses_what_the_gateway_would_not_read(self, body: dict[str, Any], expected: tuple[int, str]) -> None:
        assert code(api().post("/v1/routes/explain", body)) == expected

    def test_reading_is_enough(self) -> None:
        assert api(scopes=("gateway:read",)).post("/v1/routes/explain", {}).status_code == 200


@pytest.mark.parametrize("name", ["rewrite", "redirect"])
def test_a_new_path_names_only_groups_that_the_routes_expression_has(name: str) -> None:
    body = {"name": "users", "path": "/u/([0-9]+)", "path_type": "regex", "service": "users"}
    document = {"path": r"/users/\2"} if name == "rewrite" else {"status": 301, "path": r"/users/\2"}
    wrong = api().post("/v1/routes", {**body, name: document})
    assert code(wrong) == (422, "validation_failed")
    assert pointers(wrong) == [f"/{name}"]
    document["path"] = r"/users/\1"
    assert api().post("/v1/routes", {**body, name: document}).status_code == 201
