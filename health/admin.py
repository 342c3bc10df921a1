"""Health in the admin: checks to edit, flips and roll-ups to look at."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from health.models import Flip, HealthCheck, ResultRollup
from registry.tenant_admin import ReadOnlyAdmin, TenantAdmin, TenantFilter


@admin.register(HealthCheck)
class HealthCheckAdmin(TenantAdmin):
    tenant_path = "service__tenant"
    list_display = ["service", "whom", "check_type", "asks", "interval", "timeout", "is_enabled"]
    list_filter = ["check_type", "enabled", TenantFilter]
    list_select_related = ["service__tenant"]
    search_fields = ["service__name", "instance_id", "path"]
    autocomplete_fields = ["service"]
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


@admin.register(Flip)
class FlipAdmin(ReadOnlyAdmin):
    list_display = ["at", "service", "instance_id", "was", "became", "sentence"]
    list_filter = ["new", TenantFilter]
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
class ResultRollupAdmin(ReadOnlyAdmin):
    list_display = ["minute", "service", "instance_id", "passed", "failed", "mean", "longest"]
    list_filter = [TenantFilter]
    search_fields = ["service", "instance_id"]

    @display(description="Mean latency")
    def mean(self, rollup: ResultRollup) -> str:
        made = rollup.passed + rollup.failed
        return f"{rollup.latency_sum / made * 1000:.1f} ms" if made else "–"

    @display(description="Longest")
    def longest(self, rollup: ResultRollup) -> str:
        return f"{rollup.latency_max * 1000:.1f} ms"
