from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from gateway.forms import RouteForm, UpstreamForm
from gateway.models import RateLimitPolicy, Route, RouteTarget, Upstream
from registry.models import ApiKey, AuditEntry, Instance, Member, Revision, Service, Tenant, Zone
from registry.services.changes import SYSTEM
from registry.services.keys import create_key
from tests.api import api, tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _store(store) -> None:
    """Operators' states go to a real store."""


def staff(role: str = "", of: str = "default", *, superuser: bool = False) -> Client:
    user, _ = User.objects.get_or_create(username=role or "root", is_staff=True, is_superuser=superuser)
    if role:
        Member.objects.create(tenant=tenant(of), user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def root() -> Client:
    tenant()
    return staff(superuser=True)


def url(model: type, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def errors(response: Any) -> str:
    """What a form complains of."""
    context = response.context
    found = [
        context["adminform"].form.errors,
        *[formset.formset.errors for formset in context["inline_admin_formsets"]],
    ]
    found += [formset.formset.non_form_errors() for formset in context["inline_admin_formsets"]]
    return str(found)


def typed(form: Any) -> dict[str, Any]:
    """What a browser sends of a form as it opens."""
    values = {field.html_name: field.field.prepare_value(field.value()) for field in form}
    return {
        name: "on" if value is True else value
        for name, value in values.items()
        if value is not None and value is not False
    }


def route_form(**more: Any) -> dict[str, Any]:
    """What a browser sends to make a route by hand."""
    return {
        **typed(RouteForm()),
        "further_limits-TOTAL_FORMS": "0",
        "further_limits-INITIAL_FORMS": "0",
        "tenant": tenant().pk,
        "name": "orders",
        "path": "/orders",
        "path_type": "prefix",
        "hosts": "",
        "headers": "",
        "query": "",
        "priority": "0",
        "strip_prefix": "on",
        "auth_required": "on",
        "rate_limit_policy": "",
        "timeout_seconds": "30",
        "retries": "1",
        "enabled": "on",
        "targets-TOTAL_FORMS": "1",
        "targets-INITIAL_FORMS": "0",
        "targets-MIN_NUM_FORMS": "1",
        "targets-MAX_NUM_FORMS": "1000",
        "targets-0-service": Service.objects.get_or_create(tenant=tenant(), name="orders")[0].pk,
        "targets-0-weight": "100",
        "targets-0-version": "",
        **more,
    }


class TestEveryPage:
    MODELS = sorted((model for model in admin.site._registry), key=lambda model: model._meta.label)

    @pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
    def test_lists_and_forms_open(self, root: Client, model: type) -> None:
        create_key(SYSTEM, tenant(), "a key", ["gateway:read"])
        api().post("/v1/upstreams", {"service": "orders"})
        assert root.get(url(model)).status_code == 200
        assert root.get(url(model) + "?q=nothing").status_code == 200
        assert root.get(url(model, "add")).status_code in {200, 403}
        if row := model._default_manager.first():
            assert root.get(url(model, "change", row.pk)).status_code == 200

    @pytest.mark.parametrize("model", [Instance, Zone, AuditEntry, Revision])
    def test_what_machines_write_is_only_looked_at(self, root: Client, model: type) -> None:
        assert root.get(url(model, "add")).status_code == 403

    @pytest.mark.parametrize("model", [Service, Instance, ApiKey, Route, AuditEntry, Member])
    def test_a_list_costs_the_same_for_one_row_and_for_thirty(self, root: Client, model: type) -> None:
        counts = []
        for number in range(30):
            name = f"name-{number}"
            service = Service.objects.create(tenant=tenant(), name=name)
            Instance.objects.create(service=service, instance_id=name)
            route = Route.objects.create(tenant=tenant(), name=name, path="/")
            RouteTarget.objects.create(route=route, service=service)
            create_key(SYSTEM, tenant(), name, ["gateway:read"])
            user = User.objects.create(username=name, is_staff=True)
            Member.objects.create(tenant=tenant(), user=user)
            if number in {0, 29}:
                with CaptureQueriesContext(connection) as queries:
                    assert root.get(url(model)).status_code == 200
                counts.append(len(queries))
        assert counts[0] == counts[1] <= 14


class TestUpstream:
    def test_addresses_are_typed_one_a_line(self, root: Client) -> None:
        service = Service.objects.create(tenant=tenant(), name="legacy")
        body = {
            **typed(UpstreamForm()),
            "service": service.pk,
            "addresses": "10.0.0.7:8000\nhttps://[::1]:8443 weight=5 zone=a",
        }
        response = root.post(url(Upstream, "add"), body)
        assert response.status_code == 302, errors(response)
        upstream = Upstream.objects.get()
        assert upstream.addresses == [
            {"host": "10.0.0.7", "port": 8000},
            {"host": "::1", "port": 8443, "protocol": "https", "weight": 5, "zone": "a"},
        ]
        page = root.get(url(Upstream, "change", upstream.pk)).content.decode()
        assert "https://[::1]:8443 weight=5 zone=a" in page

    @pytest.mark.parametrize("line", ["10.0.0.7", "169.254.169.254:80", "a:99999", "a:80 colour=red", "ftp://a:80"])
    def test_an_address_that_cannot_be_is_refused(self, root: Client, line: str) -> None:
        service = Service.objects.create(tenant=tenant(), name="legacy")
        body = {**typed(UpstreamForm()), "service": service.pk, "addresses": line}
        assert root.post(url(Upstream, "add"), body).status_code == 200


class TestRoute:
    def test_a_route_is_made_by_hand(self, root: Client) -> None:
        body = route_form(
            hosts="API.example.com\n*.example.org, b.example.com",
            methods=["GET", "POST"],
            headers="X-Version: 2\n\nX-Empty:",
            query="preview: yes",
            scopes=["registry:read"],
        )
        response = root.post(url(Route, "add"), body)
        assert response.status_code == 302, errors(response)
        route = Route.objects.get()
        assert route.hosts == ["api.example.com", "*.example.org", "b.example.com"]
        assert route.methods == ["GET", "POST"]
        assert route.headers == [{"name": "X-Version", "value": "2"}, {"name": "X-Empty", "value": ""}]
        assert route.query == [{"name": "preview", "value": "yes"}]
        assert [target.service.name for target in route.targets.all()] == ["orders"]
        entry = AuditEntry.objects.get(object_type="gateway.Route")
        assert (entry.actor, entry.action, len(entry.after["targets"])) == ("root", "created", 1)
        assert Revision.objects.get().number == 1

    def test_the_form_shows_what_it_stored(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form(headers="X-Version: 2", hosts="a.com b.com", methods=["GET"]))
        page = root.get(url(Route, "change", Route.objects.get().pk)).content.decode()
        assert "X-Version: 2" in page
        assert "a.com\nb.com" in page
        assert re.findall(r'name="methods" value="(\w+)"[^>]*\schecked[\s>]', page) == ["GET"]

    def test_its_documents_are_typed_field_by_field(self, root: Client) -> None:
        more = {
            "cors__origins": "https://a.example https://b.example",
            "request_headers__set": "X-Team: a",
            "retry__on": ["connect", "status"],
            "retry__statuses": "503",
            "websockets__enabled": "",
            "targets-0-header": "X-Canary: yes",
            "targets-1-service": Service.objects.create(tenant=tenant(), name="new").pk,
            "targets-1-weight": "1",
            "targets-TOTAL_FORMS": "2",
        }
        response = root.post(url(Route, "add"), route_form(**more))
        assert response.status_code == 302, errors(response)
        route = Route.objects.get()
        assert route.cors == {"origins": ["https://a.example", "https://b.example"]}
        assert route.request_headers == {"set": [{"name": "X-Team", "value": "a"}]}
        assert route.retry == {"on": ["connect", "status"], "statuses": [503]}
        assert route.websockets == {"enabled": False}
        assert route.rewrite == route.hedge == route.auth == {}
        assert [target.header for target in route.targets.all()] == [{"name": "X-Canary", "value": "yes"}, None]
        page = root.get(url(Route, "change", route.pk)).content.decode()
        assert "https://a.example\nhttps://b.example" in page

    def test_a_route_that_redirects_needs_no_service(self, root: Client) -> None:
        more = {"targets-TOTAL_FORMS": "0", "redirect__status": "308", "redirect__scheme": "https"}
        response = root.post(url(Route, "add"), route_form(**more))
        assert response.status_code == 302, errors(response)
        assert Route.objects.get().redirect == {"status": 308, "scheme": "https"}

    def test_a_further_policy_is_of_the_same_tenant(self, root: Client) -> None:
        own = RateLimitPolicy.objects.create(tenant=tenant(), name="own", rate=1, burst=1)
        other = RateLimitPolicy.objects.create(tenant=tenant("other"), name="other", rate=1, burst=1)
        body = {"further_limits-TOTAL_FORMS": "1", "further_limits-0-policy": other.pk}
        assert "another tenant" in errors(root.post(url(Route, "add"), route_form(**body)))
        response = root.post(url(Route, "add"), route_form(**{**body, "further_limits-0-policy": own.pk}))
        assert response.status_code == 302, errors(response)
        assert [limit.policy for limit in Route.objects.get().further_limits.all()] == [own]

    def test_an_edit_is_one_change_with_its_targets(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form())
        route = Route.objects.get()
        more = {
            "targets-TOTAL_FORMS": "2",
            "targets-INITIAL_FORMS": "1",
            "targets-0-id": route.targets.get().pk,
            "targets-0-route": route.pk,
            "targets-1-service": Service.objects.create(tenant=tenant(), name="new").pk,
            "targets-1-weight": "10",
            "targets-1-version": ">=2",
        }
        response = root.post(url(Route, "change", route.pk), route_form(priority="5", **more))
        assert response.status_code == 302, errors(response)
        assert route.targets.count() == 2
        assert Revision.objects.get().number == 2
        entry = AuditEntry.objects.first()
        assert entry is not None
        assert [len(side["targets"]) for side in (entry.before, entry.after)] == [1, 2]

    @pytest.mark.parametrize(
        ("wrong", "part"),
        [
            ({"name": "A B"}, "DNS label"),
            ({"path": "orders"}, "slash"),
            ({"path": "(", "path_type": "regex"}, "no regular expression"),
            ({"hosts": "a.com:80"}, "no host name"),
            ({"methods": ["BREW"]}, "valid choice"),
            ({"headers": "X-Version 2"}, "no colon"),
            ({"headers": "X A: 2"}, "no header name"),
            ({"scopes": ["root"]}, "valid choice"),
            ({"timeout_seconds": "0"}, "greater than"),
            ({"retries": "99"}, "less than"),
            ({"targets-0-service": ""}, "required"),
            ({"targets-0-version": "new"}, "no version specifier"),
            ({"targets-0-weight": "0"}, "above 0"),
            ({"targets-TOTAL_FORMS": "0"}, "Name a service"),
            ({"redirect__status": "301"}, "comes back for ever"),
            ({"cors__origins": "example.com"}, "no origin"),
            ({"request_headers__set": "Host: a"}, "own to write"),
            ({"hedge__most": "9"}, "less than or equal to 5"),
            ({"retry__statuses": "502 x"}, "whole numbers"),
            ({"timeouts__connect": "0"}, "float > 0"),
            ({"targets-0-header": "X-A: 1\nX-B: 2"}, "At most 1"),
        ],
    )
    def test_it_says_what_is_wrong(self, root: Client, wrong: dict[str, Any], part: str) -> None:
        response = root.post(url(Route, "add"), route_form(**wrong))
        assert response.status_code == 200
        assert part in errors(response)
        assert not Route.objects.exists()
        assert not AuditEntry.objects.exists()

    def test_two_routes_of_one_name_are_refused(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form())
        assert "already exists" in errors(root.post(url(Route, "add"), route_form()))

    def test_a_service_of_another_tenant_is_refused(self, root: Client) -> None:
        theirs = Service.objects.create(tenant=tenant("acme"), name="theirs")
        response = root.post(url(Route, "add"), route_form(**{"targets-0-service": theirs.pk}))
        assert "another tenant" in errors(response)

    def test_a_method_that_is_no_box_is_kept(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form())
        Route.objects.update(methods=["PURGE"])
        assert 'value="PURGE"' in root.get(url(Route, "change", Route.objects.get().pk)).content.decode()

    def test_routes_are_switched_off_together(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form())
        row = Route.objects.get()
        root.post(url(Route), {"action": "switch_off", "_selected_action": [row.pk]})
        assert Route.objects.get().enabled is False
        assert AuditEntry.objects.count() == 2

    def test_a_route_for_whose_expression_there_is_no_room_stays_off(self, root: Client) -> None:
        rows = [
            Route.objects.create(
                tenant=tenant(), name=name, path=f"/t.*(?:x{{700}})?{name}", path_type="regex", enabled=on
            )
            for name, on in (("a", True), ("b", False), ("c", False))
        ]
        body = {"action": "switch_on", "_selected_action": [row.pk for row in rows]}
        said = root.post(url(Route), body, follow=True).content.decode()
        assert dict(Route.objects.values_list("name", "enabled")) == {"a": True, "b": True, "c": False}
        assert "c stays off. There is no room" in said
        assert "2 switched on." in said

    def test_a_route_is_deleted_with_its_targets(self, root: Client) -> None:
        root.post(url(Route, "add"), route_form())
        assert root.post(url(Route, "delete", Route.objects.get().pk), {"post": "yes"}).status_code == 302
        assert not RouteTarget.objects.exists()
        assert AuditEntry.objects.filter(action="deleted").count() == 1


class TestApiKey:
    BODY: dict[str, Any] = {"name": "app", "scopes": ["gateway:invoke"], "expires_at_0": "", "expires_at_1": ""}

    def test_a_key_is_shown_once(self, root: Client) -> None:
        response = root.post(url(ApiKey, "add"), {**self.BODY, "tenant": tenant().pk})
        assert response.status_code == 200
        shown = re.search(r'value="(anm_[^"]+)"', response.content.decode())
        assert shown
        assert "no-store" in response["Cache-Control"]
        key = ApiKey.objects.get()
        assert shown[1].startswith(f"anm_{key.public_id}_")
        assert shown[1] not in root.get(url(ApiKey, "change", key.pk)).content.decode()
        assert AuditEntry.objects.get().action == "created"

    def test_a_key_is_revoked_with_a_reason_and_never_deleted(self, root: Client) -> None:
        key = create_key(SYSTEM, tenant(), "app", ["gateway:invoke"]).row
        root.post(url(ApiKey), {"action": "revoke", "_selected_action": [key.pk], "reason": "it leaked"})
        key.refresh_from_db()
        assert key.revoked_at
        entry = AuditEntry.objects.first()
        assert entry is not None
        assert (entry.action, entry.reason) == ("revoked", "it leaked")
        assert root.post(url(ApiKey, "delete", key.pk), {"post": "yes"}).status_code == 403

    def test_a_key_may_get_other_scopes(self, root: Client) -> None:
        key = create_key(SYSTEM, tenant(), "app", ["gateway:invoke"]).row
        response = root.post(url(ApiKey, "change", key.pk), {**self.BODY, "scopes": ["gateway:read"]})
        assert response.status_code == 302, errors(response)
        key.refresh_from_db()
        assert key.scopes == ["gateway:read"]


class TestStates:
    @pytest.mark.parametrize(("action", "state"), [("drain", "draining"), ("maintain", "maintenance")])
    def test_instances_are_taken_out_of_traffic_and_back(self, root: Client, action: str, state: str) -> None:
        service = Service.objects.create(tenant=tenant(), name="orders")
        row = Instance.objects.create(service=service, instance_id="o-1")
        root.post(url(Instance), {"action": action, "_selected_action": [row.pk], "reason": "new disk"})
        row.refresh_from_db()
        assert (row.state, row.state_reason, row.state_actor) == (state, "new disk", "root")
        root.post(url(Instance), {"action": "enable", "_selected_action": [row.pk]})
        row.refresh_from_db()
        assert row.state == "enabled"

    @pytest.mark.parametrize("model", [Service, Instance, Zone])
    def test_a_word_has_a_reason_an_end_and_a_weight_and_is_undone(self, root: Client, model: type) -> None:
        row = _row_of(model)
        body = {"_selected_action": [row.pk], "reason": "power", "expires_at": "2999-01-01T10:00", "weight": "5"}
        root.post(url(model), {**body, "action": "maintain"})
        row.refresh_from_db()
        assert (row.state, row.state_reason, row.state_weight) == ("maintenance", "power", 5)
        assert f"{row.state_expires_at:%Y-%m-%d %H:%M}" == "2999-01-01 10:00"
        root.post(url(model), {"action": "undo", "_selected_action": [row.pk], "reason": "oops"})
        row.refresh_from_db()
        assert (row.state, row.state_weight) == ("enabled", None)
        said = AuditEntry.objects.filter(object_id=str(row.pk), object_type=model._meta.label).order_by("pk")
        assert [(each.action, each.reason, each.after["state"]) for each in said] == [
            ("maintained", "power", "maintenance"),
            ("undone", "oops", "enabled"),
        ]

    @pytest.mark.parametrize("wrong", [{"expires_at": "2001-01-01T10:00"}, {"expires_at": "soon"}, {"weight": "1001"}])
    def test_what_cannot_be_is_said_and_changes_nothing(self, root: Client, wrong: dict[str, str]) -> None:
        row = _row_of(Zone)
        answer = root.post(url(Zone), {"action": "drain", "_selected_action": [row.pk], **wrong}, follow=True)
        row.refresh_from_db()
        assert "Nothing was changed" in answer.content.decode()
        assert row.state == "enabled"

    def test_looking_changes_nothing(self, root: Client) -> None:
        row = Service.objects.create(tenant=tenant(), name="orders")
        root.get(url(Service), {"action": "drain", "_selected_action": [row.pk]})
        row.refresh_from_db()
        assert row.state == "enabled"

    def test_a_viewer_is_offered_no_actions(self) -> None:
        row = Service.objects.create(tenant=tenant(), name="orders")
        client = staff("viewer")
        client.post(url(Service), {"action": "drain", "_selected_action": [row.pk]})
        row.refresh_from_db()
        assert row.state == "enabled"


def _row_of(model: type) -> Any:
    service = Service.objects.create(tenant=tenant(), name="orders")
    if model is Service:
        return service
    if model is Zone:
        return Zone.objects.create(tenant=tenant(), name="eu-1")
    return Instance.objects.create(service=service, instance_id="o-1")


class TestConfinement:
    @pytest.fixture
    def theirs(self) -> Service:
        service = Service.objects.create(tenant=tenant("acme"), name="theirs")
        Instance.objects.create(service=service, instance_id="t-1")
        route = Route.objects.create(tenant=tenant("acme"), name="their-route", path="/")
        RouteTarget.objects.create(route=route, service=service)
        create_key(SYSTEM, tenant("acme"), "their-key", ["gateway:read"])
        return service

    @pytest.mark.parametrize("model", [Service, Instance, Route, ApiKey, Tenant, AuditEntry, Member])
    def test_a_member_does_not_see_another_tenants_rows(self, theirs: Service, model: type) -> None:
        Member.objects.create(tenant=tenant("acme"), user=User.objects.create(username="zed"), role="owner")
        client = staff("owner")
        page = client.get(url(model))
        assert page.status_code == 200
        assert "acme" not in page.content.decode()
        assert "their" not in page.content.decode()
        row = model._default_manager.exclude().filter(pk__in=_of("acme", model)).first()
        assert row is not None
        assert client.get(url(model, "change", row.pk)).status_code == 302
        assert client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code in {302, 403}
        assert model._default_manager.filter(pk=row.pk).exists()

    def test_a_member_cannot_point_a_route_at_another_tenant(self, theirs: Service) -> None:
        client = staff("operator")
        stolen = client.post(url(Route, "add"), route_form(**{"targets-0-service": theirs.pk}))
        assert "valid choice" in errors(stolen)
        foisted = client.post(url(Route, "add"), route_form(tenant=tenant("acme").pk))
        assert "valid choice" in errors(foisted)

    def test_the_list_to_choose_from_holds_only_the_own(self, theirs: Service) -> None:
        Service.objects.create(tenant=tenant(), name="ours")
        query = {"app_label": "gateway", "model_name": "routetarget", "field_name": "service"}
        found = staff("operator").get(reverse("admin:autocomplete"), query).json()["results"]
        assert [each["text"] for each in found] == ["ours"]

    def test_an_operator_sees_no_keys_and_no_members(self) -> None:
        client = staff("operator")
        assert client.get(url(ApiKey)).status_code == 403
        assert client.get(url(Member)).status_code == 403
        assert client.get(url(User)).status_code == 403

    def test_a_viewer_writes_nothing(self) -> None:
        body = route_form()
        client = staff("viewer")
        assert client.get(url(Route)).status_code == 200
        assert client.post(url(Route, "add"), body).status_code == 403

    def test_an_operator_here_who_looks_there_writes_only_here(self, theirs: Service) -> None:
        client = staff("operator")
        Member.objects.create(tenant=tenant("acme"), user=User.objects.get(username="operator"), role="viewer")
        client.post(url(Service), {"action": "drain", "_selected_action": [theirs.pk]})
        theirs.refresh_from_db()
        assert theirs.state == "enabled"
        route = Route.objects.get()
        client.post(url(Route), {"action": "delete_selected", "_selected_action": [route.pk], "post": "yes"})
        assert Route.objects.exists()
        assert client.post(url(Route, "delete", route.pk), {"post": "yes"}).status_code == 403

    def test_who_is_a_member_of_nothing_finds_nothing(self) -> None:
        client = staff()
        assert client.get(url(Route)).status_code == 403


class TestMembers:
    def test_an_owner_lets_a_person_in_by_name(self) -> None:
        User.objects.create(username="bob", is_staff=True)
        client = staff("owner")
        body = {"tenant": tenant().pk, "username": "bob", "role": "viewer"}
        response = client.post(url(Member, "add"), body)
        assert response.status_code == 302, errors(response)
        assert Member.objects.filter(user__username="bob", role="viewer").exists()
        assert "member already" in errors(client.post(url(Member, "add"), body))
        assert "no active member of staff" in errors(client.post(url(Member, "add"), {**body, "username": "eve"}))


class TestTenants:
    def form(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "acme",
            "title": "Acme",
            "active": "on",
            "hosts-TOTAL_FORMS": "1",
            "hosts-INITIAL_FORMS": "0",
            "hosts-0-host": "api.acme.com",
            **more,
        }

    def test_a_tenant_is_made_with_its_hosts_in_one_change(self, root: Client) -> None:
        response = root.post(url(Tenant, "add"), self.form())
        assert response.status_code == 302, errors(response)
        assert AuditEntry.objects.get().after["hosts"][0]["host"] == "api.acme.com"

    def test_default_is_neither_switched_off_nor_deleted(self, root: Client) -> None:
        pk = tenant().pk
        body = self.form(**{"name": "default", "active": "", "hosts-TOTAL_FORMS": "0"})
        assert "cannot be switched off" in errors(root.post(url(Tenant, "change", pk), body))
        assert root.post(url(Tenant, "delete", pk), {"post": "yes"}).status_code == 403
        root.post(url(Tenant), {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})
        assert Tenant.objects.filter(pk=pk).exists()


def _of(name: str, model: type) -> Any:
    path = admin.site.get_model_admin(model).tenant_path
    rows = model._default_manager.all()
    return (rows.filter(name=name) if model is Tenant else rows.filter(**{f"{path}__name": name})).values("pk")


def test_an_owner_of_default_cannot_make_a_key_that_rules_the_installation() -> None:
    owner = staff(Member.Role.OWNER)
    body = {"tenant": tenant().pk, "name": "root", "scopes": ["admin"]}
    answer = owner.post(url(ApiKey, "add"), body)
    assert "Only who runs the installation" in errors(answer)
    assert not ApiKey.objects.exists()
    assert owner.post(url(ApiKey, "add"), {**body, "scopes": ["gateway:invoke"]}).status_code == 200
    assert ApiKey.objects.get().scopes == ["gateway:invoke"]
