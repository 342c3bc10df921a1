"""The admin's home: the same verdict as the live page, and what a person came to do."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.urls import reverse

from anumate.faces.access import choose_tenant, tenants_of
from anumate.faces.picture import ServiceView, Summary, summarize, view_service
from gateway.models import Route
from health.models import Flip
from registry.live.node import get_current
from registry.models import ApiKey, AuditEntry, Service

ROWS = 8
_TROUBLE = ("down", "degraded")

# What people come for, with the permission it takes and where it is done.
ACTIONS: tuple[tuple[str, str, type[models.Model]], ...] = (
    ("Create a route", "alt_route", Route),
    ("Create an API key", "key", ApiKey),
)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds to the index page's context what `templates/admin/index.html` shows."""
    tenants = tenants_of(request.user)
    tenant = choose_tenant(tenants, request.GET.get("tenant", "")) or next(iter(tenants), None)
    context.update(title="Home", tenant=tenant, tenants=tenants, actions=_actions(request))
    if tenant is not None:
        context.update(_state_of(tenant), **_rows_of(tenant))
    return context


def _actions(request: HttpRequest) -> list[dict[str, str]]:
    found = []
    for title, icon, model in ACTIONS:
        registered = admin.site._registry.get(model)
        if registered and registered.has_add_permission(request):
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}_add"
            found.append({"title": title, "icon": icon, "link": reverse(name)})
    return found


def _state_of(tenant: str) -> dict[str, Any]:
    """The tenant's services now, and those that need attention, the worst first."""
    node = get_current()
    if node is None:
        return {"summary": None, "troubled": []}
    now = time.time()
    known = Service.objects.filter(tenant__name=tenant).values_list("name", flat=True)
    names = sorted({*known, *node.catalog.services(tenant)})
    views = [view_service(name, node.catalog.instances(tenant, name), now) for name in names]
    return {"summary": _figures(summarize(views, ())), "troubled": _troubled(views)}


def _figures(summary: Summary) -> dict[str, Any]:
    return {
        "status": summary.status if any(summary.services.values()) else "unknown",
        "headline": summary.headline,
        "up": summary.services["up"],
        "services": sum(summary.services.values()),
        "taking_traffic": summary.taking_traffic,
        "instances": summary.instances,
    }


def _troubled(views: list[ServiceView]) -> list[ServiceView]:
    return sorted((each for each in views if each.status in _TROUBLE), key=lambda each: _TROUBLE.index(each.status))


def _rows_of(tenant: str) -> dict[str, Any]:
    return {
        "routes": Route.objects.filter(tenant__name=tenant, enabled=True).count(),
        "keys": ApiKey.objects.filter(tenant__name=tenant, revoked_at=None).count(),
        "flips": Flip.objects.filter(tenant__name=tenant)[:ROWS],
        "changes": AuditEntry.objects.filter(tenant__name=tenant)[:ROWS],
    }
