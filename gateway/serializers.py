"""What the gateway's API reads and writes of its rows: routes, upstreams, issuers, policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from gateway.control import documents, issuers, rules, tls_keys
from gateway.control.document_rules import check_new_path
from gateway.control.shadows import warnings_about
from gateway.models import BreakerPolicy, JwtIssuer, RateLimitPolicy, Route, Upstream
from gateway.proxy.policies import Address
from gateway.services import check_room, host_owner
from registry.auth import caller_of
from registry.serializers import Part, ScopeList, StrictModel, Text, Whole, checked
from registry.services.catalogue import check_service_name


class PolicyName(serializers.SlugRelatedField[Any]):
    """A policy of the caller's tenant, by its name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(slug_field="name", required=False, allow_null=True, default=None, **options)

    def get_queryset(self) -> Any:
        rows: Any = super().get_queryset()
        return rows.filter(tenant=caller_of(self.context["request"]).tenant)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


def _service_name(name: str) -> None:
    check_service_name(name)


class ServiceName(Text):
    """The name of a service, which may come later."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=63, validators=[_service_name], **options)


def document_field(kind: type[msgspec.Struct]) -> serializers.Field[Any, Any, Any, Any]:
    """The API's field for a document: JSON as it is kept, so that what goes without saying is not said."""

    @extend_schema_field(documents.schema(kind))
    class DocumentField(serializers.Field[Any, Any, Any, Any]):
        def to_internal_value(self, data: Any) -> Any:
            try:
                return documents.short(documents.read(kind, data))
            except documents.Misread as error:
                raise _misread(error) from None

        def to_representation(self, value: Any) -> Any:
            return value

    return DocumentField(default=dict)


@extend_schema_field({"type": "array", "items": documents.schema(Address), "maxItems": rules.MOST})
class AddressesField(serializers.Field[Any, Any, Any, Any]):
    """Where a service is reached that nothing registers for."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            found = documents.read_addresses(data)
        except documents.Misread as error:
            raise _misread(error) from None
        return [documents.short(each) for each in found]

    def to_representation(self, value: Any) -> Any:
        return value


def _misread(error: documents.Misread) -> serializers.ValidationError:
    """The error at its place: /cors/origins/0 for a client that reads pointers."""
    detail: Any = [error.sentence]
    for step in reversed([part for part in error.path.split(".") if part]):
        detail = {step: detail}
    return serializers.ValidationError(detail)


class PairSerializer(Part):
    name = Text(max_length=200)
    value = Text(max_length=1000, allow_blank=True, trim_whitespace=False)


class TargetSerializer(Part):
    service = ServiceName()
    weight = Whole(min_value=0, max_value=1_000_000, default=100)
    version = Text(max_length=100, allow_blank=True, default="", validators=[rules.check_version])
    tags = serializers.ListField(child=Text(max_length=100), max_length=rules.MOST, default=list)
    header = PairSerializer(allow_null=True, default=None, help_text="Requests with it come here in any case.")
    cookie = PairSerializer(allow_null=True, default=None, help_text="Requests with it come here in any case.")

    def validate_header(self, pair: dict[str, str] | None) -> dict[str, str] | None:
        if pair:
            checked(rules.check_condition, pair["name"], pair["value"])
        return pair

    def validate_cookie(self, pair: dict[str, str] | None) -> dict[str, str] | None:
        if pair:
            checked(rules.check_cookie, pair["name"], pair["value"])
        return pair


class Texts(serializers.ListField):
    """Distinct texts, each by a rule."""

    def __init__(self, rule: Callable[[str], None], **options: Any) -> None:
        child = Text(max_length=253, validators=[rule])
        super().__init__(child=child, max_length=rules.MOST, default=list, **options)

    def to_internal_value(self, data: Any) -> list[str]:
        return list(dict.fromkeys(super().to_internal_value(data)))


class FurtherLimits(serializers.ListField):
    """Names of rate-limit policies of the caller's tenant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(child=Text(max_length=63), max_length=rules.MOST_LIMITS, **options)

    def to_internal_value(self, data: Any) -> list[RateLimitPolicy]:
        names = list(dict.fromkeys(super().to_internal_value(data)))
        tenant = caller_of(self.context["request"]).tenant
        found = {row.name: row for row in RateLimitPolicy.objects.filter(tenant=tenant, name__in=names)}
        if missing := [name for name in names if name not in found]:
            raise serializers.ValidationError(f"There is no rate-limit policy {missing[0]}.")
        return [found[name] for name in names]

    def to_representation(self, value: Any) -> list[str]:
        return [limit.policy.name for limit in value.all()]


class RouteSerializer(StrictModel):
    hosts = Texts(rules.check_host)
    methods = Texts(rules.check_method)
    headers = PairSerializer(many=True, default=list, max_length=rules.MOST)  # type: ignore[call-arg]  # of the list
    query = PairSerializer(many=True, default=list, max_length=rules.MOST)  # type: ignore[call-arg]  # of the list
    scopes = ScopeList(default=list)
    service = ServiceName(
        required=False,
        allow_null=True,
        help_text="The one service it goes to: short for `targets` with one item. Null where there are more.",
    )
    targets = TargetSerializer(many=True, required=False, allow_empty=False, max_length=rules.MOST)  # type: ignore[call-arg]  # of the list
    rate_limit_policy = PolicyName(queryset=RateLimitPolicy.objects.all())
    warnings = serializers.SerializerMethodField(
        help_text="In the answer to a write: why the route, or others because of it, will never get a request."
    )
    further_rate_limit_policies = FurtherLimits(
        source="further_limits", default=list, help_text="A request needs a token of each of them, too."
    )
    rewrite = document_field(Route.documents["rewrite"])
    redirect = document_field(Route.documents["redirect"])
    request_headers = document_field(Route.documents["request_headers"])
    response_headers = document_field(Route.documents["response_headers"])
    mirror = document_field(Route.documents["mirror"])
    cors = document_field(Route.documents["cors"])
    timeouts = document_field(Route.documents["timeouts"])
    retry = document_field(Route.documents["retry"])
    hedge = document_field(Route.documents["hedge"])
    limits = document_field(Route.documents["limits"])
    auth = document_field(Route.documents["auth"])
    access_log = document_field(Route.documents["access_log"])
    websockets = document_field(Route.documents["websockets"])

    class Meta:
        model = Route
        fields: ClassVar = [
            "name",
            "hosts",
            "path",
            "path_type",
            "methods",
            "headers",
            "query",
            "priority",
            "service",
            "targets",
            "strip_prefix",
            "auth_required",
            "scopes",
            "rate_limit_policy",
            "further_rate_limit_policies",
            "warnings",
            "timeout_seconds",
            "retries",
            *Route.documents,
            "enabled",
            "created_at",
        ]
        read_only_fields: ClassVar = ["created_at"]

    def get_warnings(self, route: Route) -> list[str]:
        request = self.context.get("request")
        if getattr(request, "method", "") not in ("POST", "PUT", "PATCH") or not route.enabled:
            return []
        return warnings_about(route.pk)

    def validate_name(self, name: str) -> str:
        checked(rules.check_route_name, name)
        return name

    def validate_headers(self, headers: list[dict[str, str]]) -> list[dict[str, str]]:
        for pair in headers:
            checked(rules.check_condition, pair["name"], pair["value"])
        return headers

    def validate_targets(self, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        checked(rules.check_targets, targets)
        return targets

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "path" in fields or "path_type" in fields:
            self._at("path", rules.check_path, self._new("path", fields), self._new("path_type", fields))
        for name in ("rewrite", "redirect"):
            path, kind = self._new("path", fields), self._new("path_type", fields)
            self._at(name, check_new_path, path, kind, self._new(name, fields))
        if "hosts" in fields:
            self._at("hosts", rules.check_reachable, self.tenant.name, fields["hosts"], host_owner())
        if fields.keys() & {"path", "path_type", "hosts", "enabled"}:
            said = {name: self._new(name, fields) for name in ("path", "path_type", "hosts", "enabled")}
            self._at("path", check_room, Route(pk=getattr(self.instance, "pk", None), tenant=self.tenant, **said))
        self._targets_of(fields)
        return fields

    def _targets_of(self, fields: dict[str, Any]) -> None:
        """Turn `service` into the one target it is short for. Both are taken only where they say the same, as read."""
        service = fields.pop("service", None)
        targets = fields.get("targets")
        if service is not None and targets and service != _short_for(targets):
            raise serializers.ValidationError({"service": ["Give either a service or targets."]})
        if service is not None and not targets:
            fields["targets"] = [{"service": service}]
        if "targets" not in fields and not self.partial and not fields.get("redirect"):
            raise serializers.ValidationError({"service": ["Name the service, or targets."]})

    def _new(self, name: str, fields: dict[str, Any]) -> Any:
        return fields[name] if name in fields else getattr(self.instance, name)

    def _at(self, name: str, rule: Callable[..., None], *values: Any) -> None:
        try:
            checked(rule, *values)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({name: error.detail}) from None

    def to_representation(self, instance: Route) -> dict[str, Any]:
        shown = dict(super().to_representation(instance))
        return {**shown, "service": _short_for(shown["targets"])}


def _short_for(targets: Sequence[Mapping[str, Any]]) -> str | None:
    """The service that says as much as these targets; None where they say more."""
    more = ("version", "tags", "header", "cookie")
    plain = len(targets) == 1 and not any(targets[0][name] for name in more)
    return targets[0]["service"] if plain else None


class UpstreamSerializer(StrictModel):
    service = ServiceName(source="service.name")
    breaker_policy = PolicyName(queryset=BreakerPolicy.objects.all())
    sticky = document_field(Upstream.documents["sticky"])
    outlier = document_field(Upstream.documents["outlier"])
    addresses = AddressesField(default=list)
    tls = document_field(Upstream.documents["tls"])
    tls_key = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=tls_keys.MOST,
        help_text="PEM private key to the TLS certificate. It is kept sealed and never shown; left out, it stays.",
    )

    class Meta:
        model = Upstream
        fields: ClassVar = [
            "service",
            "load_balancing",
            "breaker_policy",
            "sticky",
            "slow_start_seconds",
            "panic_threshold",
            "zone",
            "outlier",
            "concurrent",
            "addresses",
            "tls",
            "tls_key",
            "created_at",
        ]
        read_only_fields: ClassVar = ["created_at"]

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if "tls_key" in fields:
            fields["tls_key"] = tls_keys.sealed(fields["tls_key"])
        if "tls" in fields or "tls_key" in fields:
            tls = fields.get("tls", self.instance.tls if self.instance else {})
            try:
                tls_keys.check_pair(tls, fields.get("tls_key", self.instance.tls_key if self.instance else ""))
            except ValidationError as error:
                raise serializers.ValidationError({"tls_key": error.messages}) from None
        return fields

    def validate_service(self, name: str) -> str:
        if self.instance is not None and name != self.instance.service.name:
            raise serializers.ValidationError("An upstream stays with its service.")
        return name


class RateLimitPolicySerializer(StrictModel):
    by = Text(default="key", max_length=100, validators=[rules.check_by])

    class Meta:
        model = RateLimitPolicy
        fields: ClassVar = ["name", "rate", "burst", "by", "created_at"]
        read_only_fields: ClassVar = ["created_at"]


def _words(**options: Any) -> Any:
    return serializers.ListField(child=Text(max_length=500), max_length=50, **options)


class JwtIssuerSerializer(StrictModel):
    audiences = _words(help_text="A token is for at least one of them (aud).")
    algorithms = serializers.ListField(child=serializers.ChoiceField(issuers.ALGORITHMS), max_length=20)
    required_claims = _words(default=list, help_text="Claims that a token must have, besides.")
    secret = Text(
        write_only=True,
        required=False,
        max_length=1000,
        help_text="What HS256, HS384 and HS512 are signed with. It is kept sealed and never shown; left out, it stays.",
    )

    class Meta:
        model = JwtIssuer
        fields: ClassVar = [
            "name",
            "issuer",
            "audiences",
            "algorithms",
            "jwks_url",
            "keys",
            "secret",
            "leeway",
            "required_claims",
            "subject_claim",
            "scope_claim",
            "grants_invoke",
            "enabled",
            "created_at",
        ]
        read_only_fields: ClassVar = ["created_at"]

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        try:
            if "secret" in fields:
                fields["sealed_secret"] = issuers.sealed(fields.pop("secret"))
            known = (
                {}
                if self.instance is None
                else {f.name: getattr(self.instance, f.name) for f in JwtIssuer._meta.fields}
            )
            issuers.check_issuer(JwtIssuer(**{**known, **fields}))
        except ValidationError as error:
            told = error.message_dict if hasattr(error, "error_dict") else {"secret": error.messages}
            raise serializers.ValidationError(told) from None
        return fields


class BreakerPolicySerializer(StrictModel):
    class Meta:
        model = BreakerPolicy
        fields: ClassVar = [
            "name",
            "window",
            "window_seconds",
            "window_calls",
            "minimum_calls",
            "failure_rate",
            "consecutive_failures",
            "slow_call_seconds",
            "slow_call_rate",
            "open_seconds",
            "half_open_calls",
            "half_open_seconds",
            "backoff",
            "max_open_seconds",
            "jitter",
            "metrics_only",
            "created_at",
        ]
        read_only_fields: ClassVar = ["created_at"]
