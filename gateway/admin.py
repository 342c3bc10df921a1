"""The gateway for people: routes, upstreams and policies."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import models, transaction
from django.http import HttpRequest
from unfold.decorators import action, display

from gateway.forms import RateLimitPolicyForm, RouteForm, TargetFormSet, UpstreamForm
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteTarget, Upstream
from registry.tenant_admin import PartInline, TenantAdmin, TenantFilter, recorded


class RouteTargetInline(PartInline):
    model = RouteTarget
    formset = TargetFormSet
    autocomplete_fields: ClassVar = ["service"]
    fields: ClassVar = ["service", "weight", "version"]
    verbose_name = "target"
    verbose_name_plural = "targets: where the requests go"
    min_num = 1
    validate_min = True

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        return super().get_formset(request, obj, validate_min=True, **options)


@admin.register(Route)
class RouteAdmin(TenantAdmin):
    form = RouteForm
    inlines: ClassVar = [RouteTargetInline]
    list_display: ClassVar = ["name", "tenant", "shown_path", "goes_to", "priority", "rate_limit_policy", "enabled"]
    list_filter: ClassVar = [TenantFilter, "enabled", "path_type", "auth_required"]
    list_select_related: ClassVar = ["tenant", "rate_limit_policy"]
    search_fields: ClassVar = ["name", "path", "targets__service__name"]
    autocomplete_fields: ClassVar = ["rate_limit_policy"]
    actions: ClassVar = ["switch_on", "switch_off"]
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
    ]

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

    @action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: models.QuerySet[Route]) -> None:
        self._switch(request, queryset, enabled=True)

    @action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: models.QuerySet[Route]) -> None:
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: models.QuerySet[Route], *, enabled: bool) -> None:
        rows = [row for row in queryset if self.has_change_permission(request, row)]
        with transaction.atomic():
            for row in rows:
                with recorded(request, "changed", row):
                    row.enabled = enabled
                    row.save(update_fields=["enabled"])
        self.message_user(request, f"{len(rows)} switched {'on' if enabled else 'off'}.", messages.SUCCESS)


@admin.register(Upstream)
class UpstreamAdmin(TenantAdmin):
    tenant_path = "service__tenant"
    form = UpstreamForm
    list_display: ClassVar = ["service", "tenant", "load_balancing", "breaker_policy"]
    list_filter: ClassVar = [TenantFilter, "load_balancing"]
    list_select_related: ClassVar = ["service__tenant", "breaker_policy"]
    search_fields: ClassVar = ["service__name"]
    autocomplete_fields: ClassVar = ["service", "breaker_policy"]

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
        ("When it opens", {"fields": ["consecutive_failures", ("window_seconds", "minimum_calls"), "failure_rate"]}),
        ("When calls are slow", {"fields": [("slow_call_seconds", "slow_call_rate")]}),
        ("How it closes again", {"fields": [("open_seconds", "half_open_calls")]}),
    ]

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        rows: models.QuerySet[Any] = super().get_queryset(request).annotate(upstream_count=models.Count("upstreams"))
        return rows

    @display(description="Used by", ordering="upstream_count")
    def used_by(self, policy: Any) -> str:
        return f"{policy.upstream_count} upstream{'' if policy.upstream_count == 1 else 's'}"
