"""What the API tells of the gateway at work: what becomes of a request, breakers, figures."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from gateway.control import rules
from gateway.serializers import TargetSerializer
from registry.serializers import Part, Strict, Text, checked

OF_KEY = "An API key, or its public id. Without it, the key or token counts that is among the headers or in the query."


class FieldSerializer(Part):
    """A header field as a request may bring it: a token is longer than what a route can ask for."""

    name = Text(max_length=200)
    value = Text(max_length=rules.MOST_OF_A_FIELD, allow_blank=True, trim_whitespace=False)


class ExplainSerializer(Strict):
    """A request that was not sent: what would become of it?"""

    method = Text(max_length=32, default="GET", validators=[rules.check_method_name])
    host = Text(max_length=260, default="", allow_blank=True)
    path = Text(max_length=8000, default="/", help_text="With its query string, if any.")
    headers = FieldSerializer(many=True, default=list, max_length=rules.MOST)  # type: ignore[call-arg]  # of the list
    key = Text(max_length=100, default="", allow_blank=True, write_only=True, help_text=OF_KEY)
    address = serializers.IPAddressField(default="", allow_blank=True, help_text="Where the request comes from.")

    def validate_headers(self, headers: list[dict[str, str]]) -> list[dict[str, str]]:
        for pair in headers:
            checked(rules.check_field, pair["name"], pair["value"])
        return headers


class VerdictSerializer(serializers.Serializer[Any]):
    route = serializers.CharField()
    takes_it = serializers.BooleanField()
    sentence = serializers.CharField()


class CandidateSerializer(serializers.Serializer[Any]):
    instance_id = serializers.CharField()
    version = serializers.CharField()
    eligible = serializers.BooleanField()
    sentence = serializers.CharField()
    left_out = serializers.IntegerField(help_text="Gateway workers that give it no requests for now.")


class DestinationSerializer(serializers.Serializer[Any]):
    service = serializers.CharField()
    weight = serializers.IntegerField()
    version = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    chosen = serializers.BooleanField(help_text="The request asks for it, or weight decides and it has some.")
    load_balancing = serializers.CharField()
    instances = CandidateSerializer(many=True, allow_null=True, help_text="null while the store is away.")


class AdmissionSerializer(serializers.Serializer[Any]):
    auth_required = serializers.BooleanField()
    methods = serializers.ListField(child=serializers.CharField())
    scopes = serializers.ListField(child=serializers.CharField())
    admitted = serializers.BooleanField(allow_null=True, help_text="null where there is nobody to judge.")
    sentence = serializers.CharField()
    code = serializers.CharField(allow_null=True, help_text="Of the refusal.")
    consumer = serializers.CharField(allow_null=True, help_text="Who may: a key's public id or a token's subject.")
    issuer = serializers.CharField(allow_null=True, help_text="Of the token.")


class LimitInForceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    rate = serializers.FloatField()
    burst = serializers.IntegerField()
    by = serializers.CharField()


class ExplainedSerializer(serializers.Serializer[Any]):
    tenant = serializers.CharField(help_text="Whose routes were asked.")
    route = serializers.CharField(allow_null=True, help_text="The route that takes the request.")
    sentence = serializers.CharField()
    upstream_path = serializers.CharField(allow_null=True, help_text="The path that the service sees.")
    targets = TargetSerializer(many=True)
    verdicts = VerdictSerializer(many=True, help_text="Every route, in order of precedence.")
    skipped = serializers.ListField(child=serializers.CharField(), help_text="Rows that cannot be served, and why.")
    status = serializers.IntegerField(
        allow_null=True, help_text="Of the gateway's own answer; null where a service answers."
    )
    code = serializers.CharField(allow_null=True, help_text="Of the gateway's refusal.")
    upstream_host = serializers.CharField(allow_null=True, help_text="The host that the service sees.")
    redirect = serializers.CharField(allow_null=True, help_text="The address that the client is sent to.")
    admission = AdmissionSerializer(allow_null=True)
    rate_limits = LimitInForceSerializer(many=True, allow_null=True, help_text="A token of each is needed.")
    policies = serializers.DictField(allow_null=True, help_text="What the route says beyond the plain case.")
    destinations = DestinationSerializer(many=True, allow_null=True, help_text="Its targets with their instances.")


class ForceSerializer(Strict):
    reason = Text(max_length=500, required=False, allow_blank=True, default="")


BREAKER_STATES = [("closed", "Closed"), ("open", "Open"), ("half_open", "Half open")]


class ForcedSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    service = serializers.CharField()
    action = serializers.ChoiceField(choices=["open", "close", "reset"])
    generation = serializers.IntegerField()


class BreakerSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    service = serializers.CharField()
    state = serializers.ChoiceField(choices=BREAKER_STATES, help_text="The worst of all workers.")
    forced = serializers.BooleanField(help_text="An operator holds it.")
    reason = serializers.CharField()
    seconds_in_state = serializers.FloatField()
    retry_in = serializers.FloatField(help_text="Seconds until it lets trials through.")
    calls = serializers.IntegerField()
    failures = serializers.IntegerField()
    slow_calls = serializers.IntegerField()
    failure_rate = serializers.FloatField()
    consecutive_failures = serializers.IntegerField()
    workers = serializers.IntegerField(help_text="How many gateway workers report it; 0: nobody called it yet.")
    open_workers = serializers.IntegerField()


class RegistryFiguresSerializer(serializers.Serializer[Any]):
    index = serializers.CharField()
    services = serializers.IntegerField()
    instances = serializers.IntegerField()
    eligible_instances = serializers.IntegerField()


class BalancingFiguresSerializer(serializers.Serializer[Any]):
    service = serializers.CharField()
    strategy = serializers.CharField()
    instances = serializers.IntegerField()
    eligible_instances = serializers.IntegerField()
    left_out_instances = serializers.IntegerField(help_text="Those that a gateway worker leaves out for now.")


class TrafficFiguresSerializer(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    errors = serializers.IntegerField(  # type: ignore[assignment]  # a figure here, not what a form complains of
        help_text="Answers with status 500 and above."
    )
    by_status = serializers.DictField(child=serializers.IntegerField())
    mean_seconds = serializers.FloatField()
    p50_seconds = serializers.FloatField()
    p95_seconds = serializers.FloatField()
    p99_seconds = serializers.FloatField()


class RouteFiguresSerializer(TrafficFiguresSerializer):
    route = serializers.CharField(help_text="Empty: no route took the request.")
    service = serializers.CharField()


class WorkerFiguresSerializer(serializers.Serializer[Any]):
    worker = serializers.CharField()
    table_revision = serializers.IntegerField(help_text="Of the routing table that it serves; 0: none yet.")
    table_lag = serializers.IntegerField(help_text="Revisions that it is behind what is published.")
    skipped = serializers.IntegerField(help_text="Of the table, what it cannot serve; explain says why. At most 100.")


class GatewayFiguresSerializer(TrafficFiguresSerializer):
    routes = RouteFiguresSerializer(many=True)
    workers = WorkerFiguresSerializer(many=True)


class MetricsSerializer(serializers.Serializer[Any]):
    tenant = serializers.CharField()
    at = serializers.FloatField(help_text="Seconds since the epoch.")
    registry = RegistryFiguresSerializer()
    health = serializers.DictField(child=serializers.IntegerField())
    load_balancing = BalancingFiguresSerializer(many=True)
    circuit_breakers = serializers.DictField(child=serializers.CharField())
    gateway = GatewayFiguresSerializer()
