"""What health's API reads and writes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from health.models import Flip, HealthCheck
from registry.models import Instance, Service
from registry.serializers import StrictModel, Text, checked
from registry.services.catalogue import check_service_name


class CheckSerializer(StrictModel):
    """A health check as `POST /v1/health/configure` takes and answers it."""

    service_name = Text(source="service.name", max_length=63)

    class Meta:
        model = HealthCheck
        fields = [
            "id",
            "service_name",
            "instance_id",
            "check_type",
            "endpoint",
            "path",
            "interval",
            "timeout",
            "failure_threshold",
            "success_threshold",
            "warning_threshold",
            "enabled",
        ]
        read_only_fields = ["id"]
        validators: list[Any] = []  # sending the same check again is how it is changed

    def validate_service_name(self, name: str) -> str:
        checked(check_service_name, name)
        return name

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs["service_name"] = attrs.pop("service")["name"]
        if attrs["check_type"] == HealthCheck.Type.TCP:
            attrs["path"] = ""
        return attrs


class IncidentSerializer(serializers.ModelSerializer[Flip]):
    """A time in which an instance was ill."""

    service_name = serializers.CharField(source="service")
    status = serializers.CharField(source="new")
    started_at = serializers.DateTimeField(source="at")
    ended_at = serializers.DateTimeField(allow_null=True, help_text="null: it is still ill.")

    class Meta:
        model = Flip
        fields = ["service_name", "instance_id", "status", "sentence", "started_at", "ended_at"]


# From here on only for the document: `selectors.status` builds the answer.


class CheckStatusSerializer(serializers.Serializer[Any]):
    """One check of an instance, and what came of it."""

    check_type = serializers.ChoiceField(choices=HealthCheck.Type.choices)
    endpoint = serializers.CharField()
    path = serializers.CharField()
    interval = serializers.FloatField()
    timeout = serializers.FloatField()
    origin = serializers.CharField(help_text="configured, instance (it asked for it when it registered) or default")
    status = serializers.ChoiceField(choices=Instance.Health.choices)
    since = serializers.DateTimeField(allow_null=True)
    successes = serializers.IntegerField(help_text="In a row, until now.")
    failures = serializers.IntegerField(help_text="In a row, until now.")
    sentence = serializers.CharField(help_text="The last result, in words.")
    checked_at = serializers.DateTimeField(allow_null=True)
    latency = serializers.FloatField(allow_null=True, help_text="Seconds.")


class InstanceStatusSerializer(serializers.Serializer[Any]):
    """One instance, and why its status is what it is."""

    instance_id = serializers.CharField()
    status = serializers.ChoiceField(choices=Instance.Health.choices)
    state = serializers.ChoiceField(choices=Service.State.choices)
    sentence = serializers.CharField(help_text="Why its status is what it is.")
    since = serializers.DateTimeField()
    checks = CheckStatusSerializer(many=True)


class ServiceStatusSerializer(serializers.Serializer[Any]):
    """One service with its live instances."""

    name = serializers.CharField()
    status = serializers.ChoiceField(choices=Instance.Health.choices, help_text="The worst of its instances'.")
    instances = InstanceStatusSerializer(many=True)


class CountsSerializer(serializers.Serializer[Any]):
    """How many instances are how."""

    unhealthy = serializers.IntegerField()
    degraded = serializers.IntegerField()
    unknown = serializers.IntegerField()
    healthy = serializers.IntegerField()


class StatusSerializer(serializers.Serializer[Any]):
    """How everything is."""

    status = serializers.ChoiceField(choices=Instance.Health.choices, help_text="The worst of all services'.")
    services = ServiceStatusSerializer(many=True)
    counts = CountsSerializer(help_text="Of instances.")
