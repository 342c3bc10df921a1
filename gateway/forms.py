"""The gateway's forms: what a route asks for is typed one a line, or ticked."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from gateway.control import rules
from gateway.models import RateLimitPolicy, Route, Upstream
from gateway.services import host_owner
from registry.forms import PairsField, ScopesField, WordsField
from registry.models import Tenant
from registry.tenant_admin import same_tenant


class HostsField(WordsField):
    """Host names, in any case."""

    def to_python(self, value: Any) -> Any:
        return super().to_python((value or "").lower())


class MethodsField(forms.MultipleChoiceField):
    """The usual methods to tick; one that the API set and that is not among them is kept."""

    def __init__(self, **options: Any) -> None:
        choices = [(method, method) for method in rules.COMMON_METHODS]
        super().__init__(choices=choices, widget=UnfoldAdminCheckboxSelectMultipleWidget, required=False, **options)

    def offer(self, methods: list[str]) -> None:
        more = [method for method in methods if method not in rules.COMMON_METHODS]
        self.choices = [(method, method) for method in (*rules.COMMON_METHODS, *more)]


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    hosts = HostsField(
        rule=rules.check_host,
        help_text="One a line, like api.example.com or *.example.com. Empty: every host of the tenant.",
    )
    methods = MethodsField(help_text="None ticked: every method.")
    headers = PairsField(rule=rules.check_header, help_text="One a line, like X-Version: 2. All must match.")
    query = PairsField(rule=rules.check_parameter, help_text="One a line, like preview: yes. All must match.")
    scopes = ScopesField(required=False, help_text="Further scopes the key needs, besides gateway:invoke.")

    class Meta:
        model = Route
        fields: ClassVar = [
            "tenant",
            "name",
            "path",
            "path_type",
            "hosts",
            "methods",
            "headers",
            "query",
            "priority",
            "strip_prefix",
            "auth_required",
            "scopes",
            "rate_limit_policy",
            "timeout_seconds",
            "retries",
            "enabled",
        ]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if isinstance(methods := self.fields.get("methods"), MethodsField):
            methods.offer(self.instance.methods)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        rules.check_route_name(name)
        return name

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned = self.cleaned_data
        tenant: Tenant | None = cleaned.get("tenant") or (self.instance.tenant if self.instance.pk else None)
        if tenant is not None and "hosts" in cleaned:
            self._apply("hosts", rules.check_reachable, tenant.name, cleaned["hosts"], host_owner())
        same_tenant(self, "rate_limit_policy")
        return cleaned

    def _apply(self, name: str, rule: Any, *values: Any) -> None:
        try:
            rule(*values)
        except ValidationError as error:
            self.add_error(name, error)


class TargetFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The targets of a route: services of its tenant, and something to send requests to."""

    def clean(self) -> None:
        super().clean()
        kept = [form for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        for form in kept:
            self._judge(form)
        if any(self.errors):
            return
        weights = [
            (str(form.cleaned_data["service"].pk), form.cleaned_data["version"], form.cleaned_data["weight"])
            for form in kept
        ]
        rules.check_targets(weights)

    def _judge(self, form: Any) -> None:
        service, version = form.cleaned_data.get("service"), form.cleaned_data.get("version", "")
        tenant = self.instance.tenant_id
        if service is not None and tenant is not None and service.tenant_id != tenant:
            form.add_error("service", ValidationError(f"{service} belongs to another tenant."))
        try:
            rules.check_version(version)
        except ValidationError as error:
            form.add_error("version", error)


class UpstreamForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Upstream
        fields: ClassVar = ["service", "load_balancing", "breaker_policy"]

    def clean(self) -> dict[str, Any]:
        super().clean()
        service = self.cleaned_data.get("service") or (self.instance.service if self.instance.pk else None)
        policy = self.cleaned_data.get("breaker_policy")
        if service is not None and policy is not None and policy.tenant_id != service.tenant_id:
            self.add_error("breaker_policy", ValidationError(f"{policy} belongs to another tenant."))
        return self.cleaned_data


class RateLimitPolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = RateLimitPolicy
        fields: ClassVar = ["tenant", "name", "rate", "burst", "by"]

    def clean_by(self) -> str:
        by: str = self.cleaned_data["by"]
        rules.check_by(by)
        return by
