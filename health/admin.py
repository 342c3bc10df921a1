"""Health in the admin: checks to edit, flips and roll-ups to look at."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from health.models import Flip, HealthCheck, ResultRollup
from registry.models import Member, Service
from registry.requests import request_id
from registry.services.changes import Actor, change

WRITERS = (Member.Role.OPERATOR, Member.Role.OWNER)


class OfTenant(ModelAdmin):
    """Rows of the tenants that a person is a member of; superusers see all. Viewers look, operators write."""

    tenant_path = "tenant"
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(**{f"{self.tenant_path}__in": tenants_of(request)})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.is_superuser or memberships(request).exists()


def memberships(request: HttpRequest) -> QuerySet[Member]:
    if not request.user.is_authenticated:  # the login page asks too, for its sidebar
        return Member.objects.none()
    return Member.objects.filter(user=request.user, tenant__active=True)


def tenants_of(request: HttpRequest, *roles: str) -> QuerySet[Member, Any]:
    found = memberships(request)
    return (found.filter(role__in=roles) if roles else found).values("tenant")


class ReadOnly(OfTenant):
    """What machines write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(HealthCheck)
class HealthCheckAdmin(OfTenant):
    tenant_path = "service__tenant"
    list_display = ["service", "whom", "check_type", "asks", "interval", "timeout", "is_enabled"]
    list_filter = ["check_type", "enabled", "service__tenant"]
    list_select_related = ["service__tenant"]
    search_fields = ["service__name", "instance_id", "path"]
    fieldsets = [
        (None, {"fields": ["service", "instance_id", "enabled"]}),
        ("What is asked", {"fields": ["check_type", "path", "endpoint", "interval", "timeout"]}),
        ("What it takes", {"fields": ["failure_threshold", "success_threshold", "warning_threshold"]}),
    ]

    @display(description="Instance")
    def whom(self, check: HealthCheck) -> str:
        return check.instance_id or "every instance"

    @display(description="Asks")
    def asks(self, check: HealthCheck) -> str:
        where = check.endpoint or "first endpoint"
        return f"GET {check.path} at {where}" if check.check_type == HealthCheck.Type.HTTP else f"connects to {where}"

    @display(description="Enabled", boolean=True)
    def is_enabled(self, check: HealthCheck) -> bool:
        return check.enabled

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        if db_field.name == "service" and not request.user.is_superuser:
            options["queryset"] = Service.objects.filter(tenant__in=tenants_of(request, *WRITERS))
        return super().formfield_for_foreignkey(db_field, request, **options)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._writes(request, None)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._writes(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._writes(request, obj)

    def _writes(self, request: HttpRequest, check: Model | None) -> bool:
        if request.user.is_superuser:
            return True
        writable = memberships(request).filter(role__in=WRITERS)
        return (writable.filter(tenant=check.service.tenant) if isinstance(check, HealthCheck) else writable).exists()

    def save_model(self, request: HttpRequest, obj: HealthCheck, form: Any, change: bool) -> None:
        with recorded(request, "changed" if change else "created", obj):
            super().save_model(request, obj, form, change)

    def delete_model(self, request: HttpRequest, obj: HealthCheck) -> None:
        with recorded(request, "deleted", obj):
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[HealthCheck]) -> None:
        for check in queryset:
            self.delete_model(request, check)


def recorded(request: HttpRequest, action: str, check: HealthCheck) -> Any:
    return change(Actor.person(request.user, request_id(request)), action, check)


@admin.register(Flip)
class FlipAdmin(ReadOnly):
    list_display = ["at", "service", "instance_id", "was", "became", "sentence"]
    list_filter = ["new", "tenant"]
    search_fields = ["service", "instance_id", "sentence"]

    @display(description="Was")
    def was(self, flip: Flip) -> str:
        return flip.old

    @display(
        description="Became", label={"healthy": "success", "degraded": "warning", "unhealthy": "danger"}, ordering="new"
    )
    def became(self, flip: Flip) -> str:
        return flip.new


@admin.register(ResultRollup)
class ResultRollupAdmin(ReadOnly):
    list_display = ["minute", "service", "instance_id", "passed", "failed", "mean", "longest"]
    list_filter = ["tenant"]
    search_fields = ["service", "instance_id"]

    @display(description="Mean latency")
    def mean(self, rollup: ResultRollup) -> str:
        made = rollup.passed + rollup.failed
        return f"{rollup.latency_sum / made * 1000:.1f} ms" if made else "–"

    @display(description="Longest")
    def longest(self, rollup: ResultRollup) -> str:
        return f"{rollup.latency_max * 1000:.1f} ms"
