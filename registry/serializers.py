"""What the registry's API reads and writes. Nothing is guessed: a wrong type or an unknown field is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar

from django.core.exceptions import ValidationError as ModelValidationError
from django.db import models
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from registry.auth import caller_of
from registry.live.keys import SCOPES
from registry.models import ApiKey, Instance, OperatorState, Tenant, TenantHost
from registry.models.access import check_network, label


class Text(serializers.CharField):
    """Only a JSON string is text."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """Only a JSON number without a fraction is a whole number."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """Only a finite JSON number is a number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            self.fail("invalid")
        try:
            number = float(data)
        except OverflowError:
            self.fail("invalid")
        if not math.isfinite(number):
            self.fail("invalid")
        return number


class Truth(serializers.BooleanField):
    """Only true and false are truth values."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Strict(serializers.Serializer[Any]):
    """Refuses fields it does not know. Read-only ones may come back, so that what was read can be sent again."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in self.fields]):
            raise serializers.ValidationError({name: ["There is no such field."] for name in unknown})
        return super().to_internal_value(data)


class Part(Strict):
    """A body inside another one. It is whole even where the outer one only changes a row (PATCH)."""

    def run_validation(self, data: Any = serializers.empty) -> Any:
        # A field asks its root whether what is missing may stay away; alone, a part is its own root.
        parent: Any = self.parent
        if parent is None:
            return super().run_validation(data)
        is_empty, instead = self.validate_empty_values(data)
        return instead if is_empty else self._alone.run_validation(data)

    @cached_property
    def _alone(self) -> Part:
        return type(self)(context=self.context)


class StrictModel(Strict, serializers.ModelSerializer[Any]):
    """A row of one tenant. A whole body (POST, PUT) sets what it leaves out to the model's default."""

    serializer_field_mapping: ClassVar[
        dict[type[models.Field[Any, Any]], type[serializers.Field[Any, Any, Any, Any]]]
    ] = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.CharField: Text,
        models.PositiveIntegerField: Whole,
        models.PositiveSmallIntegerField: Whole,
        models.IntegerField: Whole,
        models.FloatField: Number,
        models.BooleanField: Truth,
    }

    def build_standard_field(self, field_name: str, model_field: Any) -> Any:
        kind, options = super().build_standard_field(field_name, model_field)
        if model_field.has_default() and not options.get("read_only"):
            options.pop("required", None)
            options["default"] = model_field.default
        elif model_field.null and not options.get("read_only"):
            options.pop("required", None)
            options["default"] = None
        return kind, options

    @property
    def tenant(self) -> Tenant:
        request: Request = self.context["request"]
        return caller_of(request).tenant


def checked(rule: Callable[..., object], *values: Any) -> None:
    """Apply a rule that raises Django's ValidationError, as a serializer wants it."""
    try:
        rule(*values)
    except ModelValidationError as error:
        raise serializers.ValidationError(error.messages) from None


class Future(serializers.DateTimeField):
    """A moment that is still to come, with its offset or in UTC."""

    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str):
            self.fail("invalid", format="an ISO 8601 text")
        moment = super().to_internal_value(value)
        if moment <= timezone.now():
            raise serializers.ValidationError("This moment has passed.")
        return moment


class ScopeList(serializers.ListField):
    """Scopes, each at most once."""

    child = serializers.ChoiceField(choices=list(SCOPES))

    def to_internal_value(self, data: Any) -> list[str]:
        return list(dict.fromkeys(super().to_internal_value(data)))


class HostNames(serializers.ListField):
    """The host names of a tenant: rows inside, plain texts outside."""

    child = Text(max_length=253)

    def to_representation(self, data: Any) -> list[str]:
        return [row.host for row in data.all()]

    def to_internal_value(self, data: Any) -> list[str]:
        hosts = list(dict.fromkeys(super().to_internal_value(data)))
        for host in hosts:
            checked(TenantHost._meta.get_field("host").run_validators, host)
        return hosts


QUOTAS = ("max_services", "max_instances", "max_requests_per_second")


class TenantSerializer(StrictModel):
    hosts = HostNames(default=list, max_length=1000)

    class Meta:
        model = Tenant
        fields = ["name", "title", "active", "hosts", *QUOTAS, "created_at"]
        read_only_fields = ["created_at"]
        extra_kwargs = {"name": {"validators": [label]}}  # a name that is taken is a conflict, not a wrong value

    def validate_name(self, name: str) -> str:
        if self.instance is not None and name != self.instance.name:
            raise serializers.ValidationError("A tenant's name cannot be changed.")
        return name


class Labels(serializers.ListField):
    """Names, each once."""

    child = Text(max_length=63)

    def to_internal_value(self, data: Any) -> list[str]:
        names = list(dict.fromkeys(super().to_internal_value(data)))
        for name in names:
            checked(label, name)
        return names


class NetworkList(serializers.ListField):
    """Networks in CIDR, each once."""

    child = Text(max_length=50)

    def to_internal_value(self, data: Any) -> list[str]:
        networks = list(dict.fromkeys(super().to_internal_value(data)))
        for network in networks:
            checked(check_network, network)
        return networks


KEY_LIMITS = ("routes", "networks", "rate_limit_policy")


class ApiKeySerializer(StrictModel):
    scopes = ScopeList(allow_empty=False)
    routes = Labels(required=False, max_length=100, help_text="Of the gateway. Empty: all.")
    networks = NetworkList(required=False, max_length=100, help_text="Like 10.0.0.0/8. Empty: anywhere.")
    expires_at = Future(required=False, allow_null=True)

    class Meta:
        model = ApiKey
        fields = [
            "public_id",
            "name",
            "scopes",
            *KEY_LIMITS,
            "expires_at",
            "revoked_at",
            "last_used_at",
            "created_at",
        ]
        read_only_fields = ["public_id", "revoked_at", "last_used_at", "created_at"]


class NewApiKeySerializer(ApiKeySerializer):
    """The one answer that holds the secret."""

    secret = serializers.CharField(read_only=True, help_text="The whole key. It is never shown again.")

    class Meta(ApiKeySerializer.Meta):
        fields = [*ApiKeySerializer.Meta.fields, "secret"]

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and "secret" in data:  # no answer that could be sent again has one
            raise serializers.ValidationError({"secret": ["A key's secret is made here."]})
        return super().to_internal_value(data)


class StateSerializer(Strict):
    """What an operator wants of an instance, a service or a zone. The nearest word to an instance decides."""

    state = serializers.ChoiceField(choices=OperatorState.State.choices)
    reason = Text(max_length=500, required=False, allow_blank=True, default="")
    expires_at = Future(required=False, allow_null=True, default=None)
    weight = Whole(
        min_value=0,
        max_value=1000,
        required=False,
        allow_null=True,
        default=None,
        help_text="In place of the weight that instances registered with; null leaves theirs.",
    )


class UndoSerializer(Strict):
    reason = Text(max_length=500, required=False, allow_blank=True, default="")


class StateShownSerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=OperatorState.State.choices)
    reason = serializers.CharField(source="state_reason")
    actor = serializers.CharField(source="state_actor")
    since = serializers.DateTimeField(source="state_since")
    expires_at = serializers.DateTimeField(source="state_expires_at", allow_null=True)
    weight = serializers.IntegerField(source="state_weight", allow_null=True)


class ZoneSerializer(StateShownSerializer):
    name = serializers.CharField()
    instances = serializers.IntegerField(help_text="How many live ones are in it.")


@extend_schema_field(serializers.DateTimeField(allow_null=True))
class Moment(serializers.FloatField):
    """Seconds since the epoch inside, ISO 8601 outside; 0 is no moment."""

    def to_representation(self, value: float) -> str | None:  # type: ignore[override]
        return datetime.fromtimestamp(value, UTC).isoformat() if value else None


class FactSerializer(serializers.Serializer[Any]):
    value = serializers.CharField()
    sentence = serializers.CharField()
    since = Moment()
    source = serializers.CharField()  # type: ignore[assignment]  # hides an attribute that only nested fields use
    expires_at = Moment()


class FindingSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="lease, check, health, state, zone, version, route, breaker …")
    sentence = serializers.CharField()
    blocks = serializers.BooleanField(help_text="This alone keeps traffic away.")
    since = Moment()
    until = Moment()
    source = serializers.CharField()  # type: ignore[assignment]
    details = serializers.DictField()


class InstanceWhySerializer(serializers.Serializer[Any]):
    instance_id = serializers.CharField()
    eligible = serializers.BooleanField(help_text="Whether the gateway sends it requests.")
    sentence = serializers.CharField()
    health = serializers.ChoiceField(choices=Instance.Health.choices)
    state = serializers.ChoiceField(choices=OperatorState.State.choices)
    decided_by = serializers.CharField(help_text="Whose word is in force: instance, service or zone; empty: nobody's.")
    weight = serializers.IntegerField(help_text="Its share of the traffic, an operator's word included.")
    zone = serializers.CharField()
    live = serializers.BooleanField(help_text="Whether it holds a lease.")
    facts = serializers.DictField(child=FactSerializer())
    findings = FindingSerializer(many=True)


class WhySerializer(InstanceWhySerializer):
    name = serializers.CharField()


class ServiceWhySerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    eligible = serializers.IntegerField(help_text="How many instances the gateway sends requests.")
    live = serializers.IntegerField(help_text="How many instances hold a lease.")
    sentence = serializers.CharField()
    findings = FindingSerializer(many=True)
    instances = InstanceWhySerializer(many=True)


class EntrySerializer(serializers.Serializer[Any]):
    """One thing that happened."""

    at = serializers.DateTimeField()
    kind = serializers.CharField(
        help_text="joined, left, version_changed, state_changed, state_ended, held, held_ended or flip (of its health)"
    )
    instance_id = serializers.CharField(help_text="Empty: the whole service.")
    sentence = serializers.CharField()
    version = serializers.CharField()
    details = serializers.DictField()


class ScrapeTargetSerializer(serializers.Serializer[Any]):
    targets = serializers.ListField(child=serializers.CharField())
    labels = serializers.DictField(child=serializers.CharField())
