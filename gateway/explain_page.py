"""The admin's page that explains a request: what would become of it, asked of the same service as the API's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from django import forms
from django.contrib.admin import AdminSite
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from anumate.lib.problem import Problem
from gateway.control import rules
from gateway.control.explain import Explanation, explain
from gateway.models import Route
from registry.forms import PairsField
from registry.models import Member, Tenant
from registry.tenant_admin import tenants_with

_SECRET: Final = re.compile(r"\s*(authorization|x-api-key)\s*:", re.IGNORECASE).match
MOST_VERDICTS: Final = 50
"""Routes that the page tells about; the API tells about all."""


class ExplainForm(forms.Form):
    """A request that is not sent."""

    tenant = forms.ModelChoiceField(
        Tenant.objects.none(), empty_label=None, to_field_name="name", widget=UnfoldAdminSelectWidget
    )
    method = forms.CharField(max_length=32, initial="GET", widget=UnfoldAdminTextInputWidget)
    address = forms.CharField(
        max_length=8000,
        initial="/",
        widget=UnfoldAdminTextInputWidget,
        help_text="https://shop.example/orders?x=1, or only /orders.",
    )
    headers = PairsField(
        rule=rules.check_field,
        label="Header fields",
        help_text="Name: value, one a line. A key or a token among them is judged, and is not kept.",
    )
    key = forms.CharField(
        max_length=100,
        required=False,
        label="API key",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="Its public id will do; without it, the key or token among the header fields counts. It is not kept.",
    )
    source = forms.GenericIPAddressField(
        required=False,
        label="Comes from",
        widget=UnfoldAdminTextInputWidget,
        help_text="The client's address, which matters to keys that are bound to networks.",
    )

    def __init__(self, request: HttpRequest, **options: Any) -> None:
        super().__init__(**options)
        self.fields["tenant"].queryset = tenants_with(request, Member.Role.VIEWER)  # type: ignore[attr-defined]

    def clean_method(self) -> str:
        method = str(self.cleaned_data["method"]).upper()
        rules.check_method_name(method)
        return method

    def clean_address(self) -> tuple[str, str]:
        """Host, and path with query."""
        address = self.cleaned_data["address"]
        if address.startswith("/"):
            return "", address.partition("#")[0]
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
        except ValueError:
            parts = urlsplit("")
        if not parts.hostname:
            raise ValidationError("This is no address and no path. Write it like https://shop.example/orders.")
        query = f"?{parts.query}" if parts.query else ""
        return parts.netloc.rpartition("@")[2], (parts.path or "/") + query

    def explained(self) -> Explanation | None:
        """What would become of it; None where the form cannot be used, which then says why."""
        if not self.is_valid():
            return None
        said = self.cleaned_data
        host, target = said["address"]
        try:
            return explain(
                said["tenant"].name,
                method=said["method"],
                host=host,
                target=target,
                headers=[(pair["name"], pair["value"]) for pair in said["headers"]],
                key=said["key"],
                address=said["source"],
            )
        except Problem as problem:
            self.add_error("address", problem.detail)
            return None

    def forget(self) -> None:
        """Keep the secrets among the header fields out of the page that shows the form again."""
        if self.is_bound:
            lines = str(self.data.get("headers", "")).splitlines()
            self.data = {**dict(self.data.items()), "headers": "\n".join(line for line in lines if not _SECRET(line))}


def explain_page(site: AdminSite, request: HttpRequest) -> TemplateResponse:
    """The form, and below it what it was asked. Asked by POST: a key has no place in an address."""
    if request.method == "POST":
        form = ExplainForm(request, data=request.POST)
    else:
        said = {name: request.GET[name] for name in ("tenant", "address") if name in request.GET}
        form = ExplainForm(request, initial=said)
    found = form.explained() if form.is_bound else None
    form.forget()
    context = {
        **site.each_context(request),
        "title": "Explain a request",
        "opts": Route._meta,
        "form": form,
        "found": found,
        "verdicts": found.verdicts[:MOST_VERDICTS] if found else (),
        "untold": max(0, len(found.verdicts) - MOST_VERDICTS) if found else 0,
        "policies": list(_told(found.policies or {})) if found else (),
    }
    return TemplateResponse(request, "gateway/explain.html", context)


def _told(policies: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each of the route's policies in words that a form uses: `retry` is `budget 0.2, backoff 0.025`."""
    for name, value in policies.items():
        said = ", ".join(_phrases(value)) if isinstance(value, dict) else f"{value:g}"
        yield name.replace("_", " "), said


def _phrases(document: dict[str, Any]) -> Iterator[str]:
    for name, value in document.items():
        yield f"{name.replace('_', ' ')} {_phrase(value)}"


def _phrase(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(_phrase(each) for each in value) or "none"
    if isinstance(value, dict):
        return f"{value['name']}: {value['value']}" if {"name", "value"} == value.keys() else str(value)
    return str(value)
