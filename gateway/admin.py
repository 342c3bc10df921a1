"""The gateway for people: routes, upstreams and policies."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from unfold.decorators import action, display

from gateway.control.rules import MOST_LIMITS
from gateway.control.shadows import warnings_about
from gateway.document_forms import parts
from gateway.explain_page import explain_page
from gateway.forms import (
    JwtIssuerForm,
    LimitFormSet,
    RateLimitPolicyForm,
    RouteForm,
    TargetForm,
    TargetFormSet,
    UpstreamForm,
)
from gateway.models import BreakerPolicy, JwtIssuer, RateLimitPolicy, Route, RouteLimit, RouteTarget, Upstream
from gateway.services import check_room
from registry.tenant_admin import PartInline, TenantAdmin, TenantFilter, recorded


def document_group(title: str, *names: str, kinds: Any) -> Any:
    """A fieldset, folded in, with all fields of these documents."""
    fields = [field for name in names for field in parts(name, kinds[name])]
    return title, {"classes": ["collapse"], "fields": fields}


class RouteTargetInline(PartInline):
    model = RouteTarget
    form = TargetForm
    formset = TargetFormSet
    autocomplete_fields: ClassVar = ["service"]
    fields: ClassVar = ["service", "weight", "version", "tags", "header", "cookie"]
    verbose_name = "target"
    verbose_name_plural = "targets: where the requests go"
    min_num = 1


class RouteLimitInline(PartInline):
    model = RouteLimit
    formset = LimitFormSet
    autocomplete_fields: ClassVar = ["policy"]
    verbose_name = "further rate-limit policy"
    verbose_name_plural = "further rate-limit policies: a request needs a token of each"
    max_num = MOST_LIMITS


@admin.register(Route)
class RouteAdmin(TenantAdmin):
    form = RouteForm
    inlines: ClassVar = [RouteTargetInline, RouteLimitInline]
    list_display: ClassVar = ["name", "tenant", "shown_path", "goes_to", "priority", "rate_limit_policy", "enabled"]
    list_filter: ClassVar = [TenantFilter, "enabled", "path_type", "auth_required"]
    list_select_related: ClassVar = ["tenant", "rate_limit_policy"]
    search_fields: ClassVar = ["name", "path", "targets__service__name"]
    autocomplete_fields: ClassVar = ["rate_limit_policy"]
    actions: ClassVar = ["switch_on", "switch_off"]
    actions_list: ClassVar = ["explain_request"]
    actions_detail: ClassVar = ["explain_route"]
    fieldsets: ClassVar = [
        (None, {"fields": ["tenant", "name", ("path", "path_type"), "enabled"]}),
        (
            "Which requests, more closely",
            {"classes": ["collapse"], "fields": ["hosts", "methods", "headers", "query", "priority"]},
        ),
        (
            "What is asked of callers and services",
            {
                "classes": ["collapse"],
                "fields": [
                    "auth_required",
                    "scopes",
                    "rate_limit_policy",
                    "strip_prefix",
                    ("timeout_seconds", "retries"),
                ],
            },
        ),
        document_group("Rewriting host and path", "rewrite", kinds=Route.documents),
        document_group("Redirect", "redirect", kinds=Route.documents),
        document_group("Header fields of requests", "request_headers", kinds=Route.documents),
        document_group("Header fields of answers", "response_headers", kinds=Route.documents),
        document_group("Deadlines and limits", "timeouts", "limits", kinds=Route.documents),
        document_group("Trying again", "retry", "hedge", kinds=Route.documents),
        document_group("Keys and tokens", "auth", kinds=Route.documents),
        document_group("Pages of other origins (CORS)", "cors", kinds=Route.documents),
        document_group("Mirror", "mirror", kinds=Route.documents),
        document_group("WebSockets", "websockets", kinds=Route.documents),
        document_group("Access log", "access_log", kinds=Route.documents),
    ]

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        for sentence in warnings_about(form.instance.pk) if form.instance.enabled else ():
            messages.warning(request, sentence)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("targets__service")

    @display(description="Path", ordering="path")
    def shown_path(self, route: Route) -> str:
        hosts = ", ".join(route.hosts) if isinstance(route.hosts, list) else ""
        kind = "" if route.path_type == Route.PathType.PREFIX else f" ({route.path_type})"
        return f"{hosts}{route.path}{kind}"

    @display(description="Goes to")
    def goes_to(self, route: Route) -> str:
        targets = list(route.targets.all())
        if len(targets) == 1:
            return f"{targets[0].service.name} {targets[0].version}".strip()
        return ", ".join(f"{each.service.name} {each.version} ({each.weight})".replace("  ", " ") for each in targets)

    @action(description="Explain a request", url_path="explain", permissions=["view"])
    def explain_request(self, request: HttpRequest) -> HttpResponse:
        return explain_page(self.admin_site, request)

    @action(description="Explain a request", url_path="explain")
    def explain_route(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The same page, with a request that this route might take."""
        route = self.get_object(request, object_id)
        page = reverse("admin:gateway_route_explain_request")
        if route is None:
            return HttpResponseRedirect(page)
        host = next((host for host in route.hosts if not host.startswith("*.")), "")
        address = "/" if route.path_type == Route.PathType.REGEX else route.path
        said = {"tenant": route.tenant.name, "address": f"http://{host}{address}" if host else address}
        return HttpResponseRedirect(f"{page}?{urlencode(said)}")

    @action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: models.QuerySet[Route]) -> None:
        self._switch(request, queryset, enabled=True)

    @action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: models.QuerySet[Route]) -> None:
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: models.QuerySet[Route], *, enabled: bool) -> None:
        rows = [row for row in queryset if self.has_change_permission(request, row)]
        switched = 0
        with transaction.atomic():
            for row in rows:
                row.enabled = enabled
                try:
                    check_room(row)
                except ValidationError as error:
                    self.message_user(request, f"{row} stays off. {error.messages[0]}", messages.ERROR)
                    continue
                with recorded(request, "changed", row):
                    row.save(update_fields=["enabled"])
                switched += 1
        self.message_user(request, f"{switched} switched {'on' if enabled else 'off'}.", messages.SUCCESS)


@admin.register(Upstream)
class UpstreamAdmin(TenantAdmin):
    tenant_path = "service__tenant"
    form = UpstreamForm
    list_display: ClassVar = ["service", "tenant", "load_balancing", "breaker_policy"]
    list_filter: ClassVar = [TenantFilter, "load_balancing"]
    list_select_related: ClassVar = ["service__tenant", "breaker_policy"]
    search_fields: ClassVar = ["service__name"]
    autocomplete_fields: ClassVar = ["service", "breaker_policy"]
    fieldsets: ClassVar = [
        (None, {"fields": ["service", "load_balancing", "breaker_policy"]}),
        (
            "Spreading requests",
            {"classes": ["collapse"], "fields": ["zone", ("slow_start_seconds", "panic_threshold"), "concurrent"]},
        ),
        document_group("Sticky requests", "sticky", kinds=Upstream.documents),
        document_group("Instances that keep failing", "outlier", kinds=Upstream.documents),
        ("Addresses outside the registry", {"classes": ["collapse"], "fields": ["addresses"]}),
        ("TLS", {"classes": ["collapse"], "fields": [*parts("tls", Upstream.documents["tls"]), "private_key"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), *(["service"] if obj is not None else [])]

    @display(description="Tenant", ordering="service__tenant__name")
    def tenant(self, upstream: Upstream) -> str:
        return str(upstream.service.tenant)


@admin.register(RateLimitPolicy)
class RateLimitPolicyAdmin(TenantAdmin):
    form = RateLimitPolicyForm
    list_display: ClassVar = ["name", "tenant", "rate", "burst", "by", "used_by"]
    ordering: ClassVar = ["tenant__name", "name"]  # a query that counts forgets the model's own
    list_filter: ClassVar = [TenantFilter]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name"]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request).annotate(route_count=models.Count("routes"))
        return rows

    @display(description="Used by", ordering="route_count")
    def used_by(self, policy: Any) -> str:
        return f"{policy.route_count} route{'' if policy.route_count == 1 else 's'}"


@admin.register(BreakerPolicy)
class BreakerPolicyAdmin(TenantAdmin):
    list_display: ClassVar = ["name", "tenant", "consecutive_failures", "failure_rate", "open_seconds", "used_by"]
    ordering: ClassVar = ["tenant__name", "name"]
    list_filter: ClassVar = [TenantFilter]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name"]
    fieldsets: ClassVar = [
        (None, {"fields": ["tenant", "name"]}),
        (
            "When it opens",
            {
                "fields": [
                    "consecutive_failures",
                    "window",
                    ("window_seconds", "window_calls"),
                    "minimum_calls",
                    "failure_rate",
                ]
            },
        ),
        ("When calls are slow", {"fields": [("slow_call_seconds", "slow_call_rate")]}),
        (
            "How it closes again",
            {
                "fields": [
                    ("open_seconds", "half_open_calls"),
                    "half_open_seconds",
                    ("backoff", "max_open_seconds", "jitter"),
                ]
            },
        ),
        ("Trying it out", {"fields": ["metrics_only"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request).annotate(upstream_count=models.Count("upstreams"))
        return rows

    @display(description="Used by", ordering="upstream_count")
    def used_by(self, policy: Any) -> str:
        return f"{policy.upstream_count} upstream{'' if policy.upstream_count == 1 else 's'}"


@admin.register(JwtIssuer)
class JwtIssuerAdmin(TenantAdmin):
    form = JwtIssuerForm
    list_display: ClassVar = ["name", "tenant", "issuer", "proved_by", "enabled"]
    list_filter: ClassVar = [TenantFilter, "enabled"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name", "issuer"]
    fieldsets: ClassVar = [
        (None, {"fields": ["tenant", "name", "issuer", "audiences", "enabled"]}),
        ("How tokens are proved", {"fields": ["algorithms", "jwks_url", "keys", "secret"]}),
        (
            "What tokens must say",
            {"fields": ["leeway", "required_claims", "subject_claim", "scope_claim", "grants_invoke"]},
        ),
    ]

    @display(description="Proved by")
    def proved_by(self, row: JwtIssuer) -> str:
        return row.jwks_url or ("keys" if row.keys else "secret")
