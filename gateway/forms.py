"""The gateway's forms: what a route asks for is typed one a line, or ticked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from gateway.control import documents, issuers, rules, tls_keys
from gateway.document_forms import form_of
from gateway.models import JwtIssuer, RateLimitPolicy, Route, RouteTarget, Upstream
from gateway.services import check_room, host_owner
from registry.forms import PairsField, ScopesField, WordsField
from registry.models import Tenant
from registry.tenant_admin import same_tenant

_AUTHORITY: Final = re.compile(r"(?:\[([^][]+)\]|([^][:]+)):([0-9]{1,9})")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class AddressesField(forms.CharField):
    """Addresses of a service, one a line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}), required=False, **options)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(_as_line, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        lines = [line.strip() for line in (value or "").splitlines() if line.strip()]
        try:
            found = documents.read_addresses([_from_line(line) for line in lines])
        except documents.Misread as error:
            line, _, field = error.path.partition(".")
            where = f"{lines[int(line)]}: {field}".rstrip() + " " if line else ""
            raise ValidationError(f"{where}{error.sentence}") from None
        return [documents.short(each) for each in found]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.prepare_value(initial or []) != (data or ""))


def _as_line(address: Mapping[str, Any]) -> str:
    host = f"[{address['host']}]" if ":" in address["host"] else address["host"]
    scheme = "https://" if address.get("protocol") == "https" else ""
    more = "".join(f" {name}={address[name]}" for name in ("weight", "zone") if name in address)
    return f"{scheme}{host}:{address['port']}{more}"


def _from_line(line: str) -> dict[str, Any]:
    where, *more = line.split()
    protocol, _, authority = where.rpartition("://")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValidationError(f"{line}: write host:port, and an IPv6 address in brackets.")
    address: dict[str, Any] = {"host": found[1] or found[2], "port": int(found[3]), "protocol": protocol or "http"}
    for word in more:
        name, _, value = word.partition("=")
        address[name] = int(value) if name == "weight" and _NUMBER.fullmatch(value) else value
    return address


class HostsField(WordsField):
    """Host names, in any case."""

    def to_python(self, value: Any) -> Any:
        return super().to_python((value or "").lower())


class OnePairField(PairsField):
    """At most one name with its value; the row has it, or null."""

    def __init__(self, **options: Any) -> None:
        super().__init__(most=1, **options)
        self.widget = UnfoldAdminTextInputWidget()

    def prepare_value(self, value: Any) -> Any:
        return super().prepare_value([value] if isinstance(value, dict) else value)

    def clean(self, value: Any) -> Any:
        return next(iter(super().clean(value)), None)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed([initial] if initial else [], data)


class MethodsField(forms.MultipleChoiceField):
    """The usual methods to tick; one that the API set and that is not among them is kept."""

    def __init__(self, **options: Any) -> None:
        choices = [(method, method) for method in rules.COMMON_METHODS]
        super().__init__(choices=choices, widget=UnfoldAdminCheckboxSelectMultipleWidget, required=False, **options)

    def offer(self, methods: list[str]) -> None:
        more = [method for method in methods if method not in rules.COMMON_METHODS]
        self.choices = [(method, method) for method in (*rules.COMMON_METHODS, *more)]


class RouteForm(form_of(Route.documents), forms.ModelForm):  # type: ignore[misc, type-arg]  # made at run time
    hosts = HostsField(
        rule=rules.check_host,
        help_text="One a line, like api.example.com or *.example.com. Empty: every host of the tenant.",
    )
    methods = MethodsField(help_text="None ticked: every method.")
    headers = PairsField(rule=rules.check_condition, help_text="One a line, like X-Version: 2. All must match.")
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

    def clean_methods(self) -> list[str]:
        methods: list[str] = self.cleaned_data["methods"]
        for method in methods:
            rules.check_method(method)
        return methods

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned = self.cleaned_data
        tenant: Tenant | None = cleaned.get("tenant") or (self.instance.tenant if self.instance.pk else None)
        if tenant is not None and "hosts" in cleaned:
            self._apply("hosts", rules.check_reachable, tenant.name, cleaned["hosts"], host_owner())
        same_tenant(self, "rate_limit_policy")
        return cleaned

    def _post_clean(self) -> None:
        """The row is as it is about to be saved, and has judged itself."""
        super()._post_clean()
        if not self.errors.keys() & {"tenant", "hosts", "path", "path_type"}:
            self._apply("path", check_room, self.instance)

    def _apply(self, name: str, rule: Any, *values: Any) -> None:
        try:
            rule(*values)
        except ValidationError as error:
            self.add_error(name, error)


class TargetForm(forms.ModelForm):  # type: ignore[type-arg]
    tags = WordsField(help_text="Only instances with all of these.")
    header = OnePairField(rule=rules.check_condition, help_text="Like X-Canary: yes. Such requests come here.")
    cookie = OnePairField(rule=rules.check_cookie, help_text="Like canary: yes. Such requests come here.")

    class Meta:
        model = RouteTarget
        fields: ClassVar = ["service", "weight", "version", "tags", "header", "cookie"]


class TargetFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The targets of a route: services of its tenant, and something to send requests to."""

    def clean(self) -> None:
        super().clean()
        kept = [form for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        for form in kept:
            self._judge(form)
        if any(self.errors):
            return
        if not kept and not self.instance.redirect:
            raise ValidationError("Name a service, unless the route redirects.")
        rules.check_targets([{**form.cleaned_data, "service": form.cleaned_data["service"].pk} for form in kept])

    def _judge(self, form: Any) -> None:
        service, version = form.cleaned_data.get("service"), form.cleaned_data.get("version", "")
        tenant = self.instance.tenant_id
        if service is not None and tenant is not None and service.tenant_id != tenant:
            form.add_error("service", ValidationError(f"{service} belongs to another tenant."))
        try:
            rules.check_version(version)
        except ValidationError as error:
            form.add_error("version", error)


class LimitFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """The further policies of a route: of its tenant."""

    def clean(self) -> None:
        super().clean()
        for form in self.forms:
            policy = form.cleaned_data.get("policy") if form.cleaned_data else None
            if policy is not None and policy.tenant_id != self.instance.tenant_id:
                form.add_error("policy", ValidationError(f"{policy} belongs to another tenant."))


class UpstreamForm(form_of(Upstream.documents), forms.ModelForm):  # type: ignore[misc, type-arg]
    addresses = AddressesField(
        help_text="One a line: host:port, or https://host:port, then weight=100 and zone=a if need be. "
        "They take the place of what the registry knows."
    )
    private_key = forms.CharField(
        required=False,
        max_length=tls_keys.MOST,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "autocomplete": "off"}),
        help_text="PEM private key to the certificate. It is kept sealed and never shown. Empty: the one there is.",
    )

    class Meta:
        model = Upstream
        fields: ClassVar = [
            "service",
            "load_balancing",
            "breaker_policy",
            "slow_start_seconds",
            "panic_threshold",
            "zone",
            "concurrent",
            "addresses",
        ]

    def clean(self) -> dict[str, Any]:
        super().clean()
        if pem := self.cleaned_data.get("private_key"):
            self.instance.tls_key = tls_keys.sealed(pem)
        if not self.instance.tls.get("certificate"):
            self.instance.tls_key = ""  # it belonged to the certificate that was taken away
        try:
            tls_keys.check_pair(self.instance.tls, self.instance.tls_key)
        except ValidationError as error:
            self.add_error("private_key", error)
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


class JwtIssuerForm(forms.ModelForm):  # type: ignore[type-arg]
    audiences = WordsField(required=True, help_text="One a line; a token is for at least one of them (aud).")
    algorithms = forms.MultipleChoiceField(
        choices=[(name, name) for name in issuers.ALGORITHMS],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Those that count, whatever a token says of itself.",
    )
    required_claims = WordsField(help_text="Claims that a token must have, besides.")
    secret = forms.CharField(
        required=False,
        max_length=1000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="What HS256, HS384 and HS512 are signed with. Kept sealed and never shown. Empty: the one there is.",
    )

    class Meta:
        model = JwtIssuer
        fields: ClassVar = [
            *("tenant", "name", "issuer", "audiences", "algorithms", "jwks_url", "keys", "leeway"),
            *("required_claims", "subject_claim", "scope_claim", "grants_invoke", "enabled"),
        ]
        labels: ClassVar = {"jwks_url": "JWKS URL"}
        widgets: ClassVar = {"keys": UnfoldAdminTextareaWidget(attrs={"rows": 4})}

    def clean(self) -> dict[str, Any]:
        super().clean()
        if self.errors:
            return self.cleaned_data
        fields = {name: self.cleaned_data[name] for name in self._meta.fields or ()}
        try:
            kept = "" if fields["jwks_url"] or fields["keys"] else self.instance.sealed_secret
            secret = self.cleaned_data["secret"]
            self.instance.sealed_secret = issuers.sealed(secret) if secret else kept
            issuers.check_issuer(JwtIssuer(**fields, sealed_secret=self.instance.sealed_secret))
        except ValidationError as error:
            self.add_error(None if hasattr(error, "error_dict") else "secret", error)
        return self.cleaned_data
