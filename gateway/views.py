"""The gateway's resources: routes, upstreams, policies; why a request goes where; breakers; metrics."""

from __future__ import annotations

from typing import Any, ClassVar

from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway.control.breakers import breaker_of, breakers_of, force
from gateway.control.explain import explain
from gateway.control.exposition import OpenMetricsText, PrometheusText
from gateway.control.metrics import as_json, metrics_of
from gateway.models import BreakerPolicy, JwtIssuer, RateLimitPolicy, Route, Upstream
from gateway.proxy.reports import Action
from gateway.report_serializers import (
    BreakerSerializer,
    ExplainedSerializer,
    ExplainSerializer,
    ForcedSerializer,
    ForceSerializer,
    MetricsSerializer,
)
from gateway.serializers import (
    BreakerPolicySerializer,
    JwtIssuerSerializer,
    RateLimitPolicySerializer,
    RouteSerializer,
    UpstreamSerializer,
)
from gateway.services import set_further_limits, set_targets
from registry.auth import caller_of
from registry.pagination import Pages
from registry.resources import TenantResource
from registry.services.catalogue import ensure_service

READ_AND_WRITE = {"read": "gateway:read", "write": "gateway:write"}


class RouteFilter(filters.FilterSet):
    service = filters.CharFilter(
        field_name="targets__service__name",
        distinct=True,
        help_text="Only routes that go to this service.",
    )

    class Meta:
        model = Route
        fields: ClassVar = ["enabled", "path"]


class Routes(TenantResource):
    """Which requests go to which services."""

    queryset = Route.objects.select_related("tenant", "rate_limit_policy").prefetch_related(
        "targets__service", "further_limits__policy"
    )
    serializer_class = RouteSerializer
    filterset_class = RouteFilter
    scopes: ClassVar = READ_AND_WRITE

    def fill(self, row: Any, fields: dict[str, Any]) -> None:
        targets, limits = fields.pop("targets", None), fields.pop("further_limits", None)
        super().fill(row, fields)
        if targets is not None:
            set_targets(self.caller.actor, row, targets)
        if limits is not None:
            set_further_limits(row, limits)


class Upstreams(TenantResource):
    """How the requests to a service are spread over its instances, and which breaker guards them."""

    queryset = Upstream.objects.select_related("service__tenant", "breaker_policy")
    serializer_class = UpstreamSerializer
    filterset_fields: ClassVar = ["load_balancing"]
    owner = "service__tenant"
    lookup_field = "service__name"
    lookup_url_kwarg = "name"
    scopes: ClassVar = READ_AND_WRITE

    def new(self) -> Upstream:
        return Upstream()

    def prepare(self, row: Any, fields: dict[str, Any]) -> None:
        named = fields.pop("service", None)
        if row.pk is None and named is not None:
            row.service = ensure_service(self.caller.actor, self.caller.tenant, named["name"])


class RateLimitPolicies(TenantResource):
    """Token buckets that routes may use."""

    queryset = RateLimitPolicy.objects.all()
    serializer_class = RateLimitPolicySerializer
    filterset_fields: ClassVar = ["by"]
    scopes: ClassVar = READ_AND_WRITE


class BreakerPolicies(TenantResource):
    """When a service's circuit breaker opens, and how it closes again."""

    queryset = BreakerPolicy.objects.all()
    serializer_class = BreakerPolicySerializer
    scopes: ClassVar = READ_AND_WRITE


class JwtIssuers(TenantResource):
    """Whose JSON Web Tokens the tenant's routes believe."""

    queryset = JwtIssuer.objects.all()
    serializer_class = JwtIssuerSerializer
    filterset_fields: ClassVar = ["enabled"]
    scopes: ClassVar = READ_AND_WRITE


class Explain(APIView):
    """Which route takes a request, and why the others do not. Nothing is sent anywhere."""

    scopes: ClassVar = {"write": "gateway:read"}

    @extend_schema(request=ExplainSerializer, responses=ExplainedSerializer)
    def post(self, request: Request) -> Response:
        asked = ExplainSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        found = explain(
            caller_of(request).tenant.name,
            method=wanted["method"],
            host=wanted["host"],
            target=wanted["path"],
            headers=[(pair["name"], pair["value"]) for pair in wanted["headers"]],
            key=wanted["key"],
            address=wanted["address"],
        )
        return Response(ExplainedSerializer(found).data)


class CircuitBreakers(APIView):
    """The tenant's circuit breakers, merged over all gateway workers."""

    pagination_class = Pages
    scopes: ClassVar = READ_AND_WRITE

    @extend_schema(responses=BreakerSerializer(many=True))
    def get(self, request: Request) -> Response:
        pages = self.pagination_class()
        page = pages.paginate_queryset(breakers_of(caller_of(request).tenant), request, self)
        return pages.get_paginated_response(BreakerSerializer(page, many=True).data)


class CircuitBreaker(APIView):
    """One circuit breaker, merged over all gateway workers."""

    scopes: ClassVar = READ_AND_WRITE

    @extend_schema(responses=BreakerSerializer)
    def get(self, request: Request, name: str) -> Response:
        return Response(BreakerSerializer(breaker_of(caller_of(request).tenant, name)).data)


class ForceBreaker(APIView):
    """Hold a breaker open or closed, or let it decide for itself again. Every worker adopts it within a second."""

    scopes: ClassVar = READ_AND_WRITE

    @extend_schema(request=ForceSerializer, responses={202: ForcedSerializer})
    def post(self, request: Request, name: str, action: Action) -> Response:
        caller = caller_of(request)
        asked = ForceSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        forced = force(caller.actor, caller.tenant, name, action, **asked.validated_data)
        return Response(ForcedSerializer(forced).data, status=202)


class MetricsView(APIView):
    """Everything that is counted of the tenant: JSON, or Prometheus' text or OpenMetrics by `Accept`."""

    scopes: ClassVar = READ_AND_WRITE
    renderer_classes = [JSONRenderer, OpenMetricsText, PrometheusText]

    @extend_schema(
        responses={
            (200, "application/json"): MetricsSerializer,
            (200, "text/plain"): str,
            (200, "application/openmetrics-text"): str,
        }
    )
    def get(self, request: Request) -> Response:
        metrics = metrics_of(caller_of(request).tenant)
        renderer = request.accepted_renderer
        if isinstance(renderer, PrometheusText):
            return Response(metrics, content_type=renderer.content_type)
        return Response(as_json(metrics))
