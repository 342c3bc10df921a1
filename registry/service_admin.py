"""Services, instances and zones for people: what is there, and what operators want of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from anumate.lib.problem import Problem
from anumate.lib.redis import UNAVAILABLE
from registry import why
from registry.forms import StateActionForm, WordForm
from registry.models import Instance, Member, OperatorState, Service, Zone
from registry.services import operator
from registry.tenant_admin import ReadOnlyAdmin, TenantAdmin, TenantFilter, actor_of
from registry.timeline import Timeline

HEALTH_COLOURS = {"healthy": "success", "degraded": "warning", "unhealthy": "danger"}
STATE_COLOURS = {"enabled": "success", "draining": "warning", "maintenance": "info"}
SHOWN = 30
"""How many entries of a timeline a page has."""


def explained(ask: Callable[[], why.Why | why.ServiceWhy | None]) -> SafeString:
    """The sentence and every finding, for a page that opens also while the store is away."""
    try:
        found = ask()
    except UNAVAILABLE:
        return format_html("{}", "The live state is away.")
    if found is None:
        return format_html("{}", "Nobody has heard of it.")
    rows = [(each.kind, each.sentence, " (this keeps traffic away)" if each.blocks else "") for each in found.findings]
    sentence = format_html("<p><strong>{}</strong></p>", found.sentence)
    return sentence + format_html_join("", "<div>{}: {}{}</div>", rows)


def happened(timeline: Timeline) -> SafeString:
    """The newest entries of a timeline."""
    rows = [(f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.instance_id, entry.sentence) for entry in timeline[:SHOWN]]
    return format_html_join("", "<div>{} <b>{}</b> {}</div>", rows) or format_html("{}", "Nothing yet.")


class StateActions(TenantAdmin):
    """Take the selected rows out of traffic, or back in."""

    actions: ClassVar = ["drain", "maintain", "enable", "undo"]
    action_form = StateActionForm

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return self._allowed(request, Member.Role.OPERATOR, None)

    @action(description="Drain: no new requests", permissions=["operate"])
    def drain(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        self._set(request, queryset, OperatorState.State.DRAINING)

    @action(description="Maintenance: no requests, no alerts", permissions=["operate"])
    def maintain(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        self._set(request, queryset, OperatorState.State.MAINTENANCE)

    @action(description="Enable: back into traffic", permissions=["operate"])
    def enable(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        self._set(request, queryset, OperatorState.State.ENABLED)

    @action(description="Undo the last change of state", permissions=["operate"])
    def undo(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        rows, undone = self._writable(request, queryset), 0
        for row in rows:
            with contextlib.suppress(Problem):  # nothing to undo there
                operator.undo(actor_of(request), row, reason=request.POST.get("reason", "")[:500])
                undone += 1
        self._tell(request, f"{undone} undone.", len(queryset) - undone, "nothing to undo, or you only look there.")

    def _set(self, request: HttpRequest, queryset: models.QuerySet[Any], state: str) -> None:
        word = WordForm(request.POST)
        if not word.is_valid():
            self.message_user(request, f"Nothing was changed. {word.complaint()}", messages.ERROR)
            return
        rows = self._writable(request, queryset)
        for row in rows:
            operator.set_state(actor_of(request), row, state, **word.cleaned_data)
        self._tell(request, f"{len(rows)} set to {state}.", len(queryset) - len(rows), "you only look there.")

    def _writable(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> list[Any]:
        return [row for row in queryset if self._allowed(request, Member.Role.OPERATOR, row)]

    def _tell(self, request: HttpRequest, done: str, left: int, why: str) -> None:
        text = done + (f" {left} left alone: {why}" if left else "")
        self.message_user(request, text, messages.WARNING if left else messages.SUCCESS)

    @display(description="State", label=STATE_COLOURS)
    def shown_state(self, row: OperatorState) -> str:
        over = row.state_expires_at is not None and row.state_expires_at <= timezone.now()
        return OperatorState.State.ENABLED.value if over else row.state


@admin.register(Service)
class ServiceAdmin(StateActions):
    list_display: ClassVar = ["name", "tenant", "shown_state", "live_instances", "description", "state_reason"]
    list_filter: ClassVar = [TenantFilter, "state"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name", "description"]
    fields: ClassVar = ["tenant", "name", "description"]
    readonly_fields: ClassVar = ["why", "history"]
    ordering: ClassVar = ["tenant__name", "name"]  # a query that counts forgets the model's own

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        live = models.Count("instances", filter=models.Q(instances__live=True))
        rows: models.QuerySet[Any] = super().get_queryset(request).annotate(live_count=live)
        return rows

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        """Routes, keys of the live state and the instances themselves know it by its name."""
        return [*super().get_readonly_fields(request, obj), *(["name"] if obj is not None else [])]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        return [*super().get_fields(request, obj), *(self.readonly_fields if obj is not None else [])]

    @display(description="Why it gets traffic, or does not")
    def why(self, service: Service) -> SafeString:
        return explained(lambda: why.why_service(service.tenant, service.name, time.time()))

    @display(description="What happened, newest first")
    def history(self, service: Service) -> SafeString:
        return happened(Timeline(service.tenant, service.name))

    @display(description="Live instances", ordering="live_count")
    def live_instances(self, service: Any) -> int:
        return int(service.live_count)


@admin.register(Instance)
class InstanceAdmin(StateActions, ReadOnlyAdmin):
    tenant_path = "service__tenant"
    list_display: ClassVar = [
        "instance_id",
        "service",
        "shown_health",
        "shown_state",
        "live",
        "version",
        "zone",
        "health_sentence",
        "registered_at",
    ]
    list_filter: ClassVar = [TenantFilter, "live", "health", "state"]
    list_select_related: ClassVar = ["service__tenant"]
    search_fields: ClassVar = ["instance_id", "service__name", "version", "zone"]
    ordering: ClassVar = ["service__name", "instance_id"]
    readonly_fields: ClassVar = ["why", "history"]

    def get_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        told = self.readonly_fields
        return [*told, *(name for name in super().get_fields(request, obj) if name not in told)]

    @display(description="Why it gets traffic, or does not")
    def why(self, row: Instance) -> SafeString:
        service = row.service
        return explained(lambda: why.why_of(service.tenant, service.name, row.instance_id, time.time()))

    @display(description="What happened, newest first")
    def history(self, row: Instance) -> SafeString:
        return happened(Timeline(row.service.tenant, row.service.name, row.instance_id))

    @display(description="Health", label=HEALTH_COLOURS, ordering="health")
    def shown_health(self, instance: Instance) -> str:
        return instance.health


@admin.register(Zone)
class ZoneAdmin(StateActions, ReadOnlyAdmin):
    """Rows are made as instances name their zones."""

    list_display: ClassVar = ["name", "tenant", "shown_state", "state_weight", "state_reason", "state_expires_at"]
    list_filter: ClassVar = [TenantFilter, "state"]
    list_select_related: ClassVar = ["tenant"]
    search_fields: ClassVar = ["name"]
    ordering: ClassVar = ["tenant__name", "name"]
