"""The gateway's resources: routes, upstreams, policies; why a request goes where; breakers; metrics."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway.control.explain import explain
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, Upstream
from gateway.serializers import (
    BreakerPolicySerializer,
    ExplainedSerializer,
    ExplainSerializer,
    RateLimitPolicySerializer,
    RouteSerializer,
    UpstreamSerializer,
)
from gateway.services import set_targets
from registry.auth import caller_of
from registry.resources import TenantResource
from registry.services.catalogue import ensure_service

READ_AND_WRITE = {"read": "gateway:read", "write": "gateway:write"}


class Routes(TenantResource):
    """Which requests go to which services."""

    queryset = Route.objects.select_related("tenant", "rate_limit_policy").prefetch_related("targets__service")
    serializer_class = RouteSerializer
    filterset_fields: ClassVar = {
        "enabled": ["exact"],
        "path": ["exact", "startswith"],
        "targets__service__name": ["exact"],
    }
    scopes: ClassVar = READ_AND_WRITE

    def fill(self, row: models.Model, fields: dict[str, Any]) -> None:
        targets = fields.pop("targets", None)
        super().fill(row, fields)
        if targets is not None and isinstance(row, Route):
            set_targets(self.caller.actor, row, targets)


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

    def prepare(self, row: models.Model, fields: dict[str, Any]) -> None:
        named = fields.pop("service", None)
        if row.pk is None and named is not None:
            row.service = ensure_service(self.caller.actor, self.caller.tenant, named["name"])  # type: ignore[attr-defined]


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
        )
        return Response(ExplainedSerializer(found).data)
