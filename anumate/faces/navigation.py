"""The admin's sidebar: what belongs together for the person at work, not by Django app."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse, reverse_lazy


class Entry(NamedTuple):
    model: str
    title: str
    icon: str


GROUPS: dict[str, tuple[Entry, ...]] = {
    "Registry": (
        Entry("registry.service", "Services", "deployed_code"),
        Entry("registry.instance", "Instances", "dns"),
        Entry("registry.zone", "Zones", "location_on"),
    ),
    "Gateway": (
        Entry("gateway.route", "Routes", "alt_route"),
        Entry("gateway.upstream", "Upstreams", "call_split"),
        Entry("gateway.ratelimitpolicy", "Rate limits", "speed"),
        Entry("gateway.breakerpolicy", "Breaker policies", "electrical_services"),
    ),
    "Health": (
        Entry("health.healthcheck", "Checks", "monitor_heart"),
        Entry("health.flip", "Journal", "history"),
        Entry("health.resultrollup", "Results per minute", "bar_chart"),
    ),
    "Access": (
        Entry("registry.apikey", "API keys", "key"),
        Entry("gateway.jwtissuer", "JWT issuers", "badge"),
        Entry("registry.tenant", "Tenants", "domain"),
        Entry("registry.member", "Members", "group"),
        Entry("auth.user", "People", "person"),
    ),
    "Audit": (Entry("registry.auditentry", "Changes", "fact_check"),),
}

_TOP = [
    {"title": "Home", "icon": "home", "link": reverse_lazy("admin:index")},
    {"title": "Live", "icon": "monitoring", "link": reverse_lazy("live")},
]


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Only what this person may look at; a group with nothing in it is left out."""
    visible = {
        f"{app['app_label']}.{model['object_name'].lower()}"
        for app in admin.site.get_app_list(request)
        for model in app["models"]
        if model["admin_url"]
    }
    groups: list[dict[str, Any]] = [{"items": [dict(item) for item in _TOP]}]
    for title, entries in GROUPS.items():
        items = [_item(entry) for entry in entries if entry.model in visible]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _item(entry: Entry) -> dict[str, Any]:
    app, model = entry.model.split(".")
    return {"title": entry.title, "icon": entry.icon, "link": reverse(f"admin:{app}_{model}_changelist")}
