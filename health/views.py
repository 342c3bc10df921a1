"""Health's API."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db.models import QuerySet
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from anumate.lib.redis import connect
from health import selectors, services
from health.models import Flip
from health.serializers import CheckSerializer, IncidentSerializer, StatusSerializer
from registry.auth import caller_of
from registry.selectors import catalog


class HealthStatus(APIView):
    """How every service, instance and check is now."""

    scopes: ClassVar = {"read": "health:read"}

    @extend_schema(
        parameters=[OpenApiParameter("service_name", str, description="Of this service only.")],
        responses=StatusSerializer,
    )
    def get(self, request: Request) -> Response:
        client = connect(settings.REDIS_URL)
        try:
            service = request.query_params.get("service_name", "")
            return Response(selectors.status(caller_of(request).tenant, catalog(), client, service))
        finally:
            client.close()


class ConfigureCheck(APIView):
    """Have a service, or one instance of it, checked in this way."""

    scopes: ClassVar = {"write": "health:write"}

    @extend_schema(
        request=CheckSerializer,
        responses={
            201: CheckSerializer,
            200: OpenApiResponse(CheckSerializer, description="The check was there and is changed."),
        },
    )
    def post(self, request: Request) -> Response:
        caller = caller_of(request)
        wanted = CheckSerializer(data=request.data, context={"request": request})
        wanted.is_valid(raise_exception=True)
        check, created = services.configure(caller.actor, caller.tenant, **wanted.validated_data)
        return Response(CheckSerializer(check).data, status=201 if created else 200)


class IncidentFilter(filters.FilterSet):
    service_name = filters.CharFilter(field_name="service")
    status = filters.CharFilter(field_name="new")
    open = filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull")

    class Meta:
        model = Flip
        fields = ["instance_id"]


class Incidents(ListAPIView[Flip]):
    """Each time an instance was unhealthy or degraded, latest first."""

    queryset = Flip.objects.all()
    serializer_class = IncidentSerializer
    filterset_class = IncidentFilter
    scopes: ClassVar = {"read": "health:read"}

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):  # the schema is drawn without a caller
            return Flip.objects.none()
        return selectors.incidents(caller_of(self.request).tenant)
