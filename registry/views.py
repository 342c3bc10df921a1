"""The registry's resources: keys, tenants, what operators want of services, and why an instance gets traffic."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from django.db import models
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from anumate.lib.problem import Problem
from registry import selectors, why
from registry.auth import Caller, caller_of
from registry.models import ApiKey, Instance, Service, Tenant, Zone
from registry.resources import TenantResource
from registry.serializers import (
    ApiKeySerializer,
    EntrySerializer,
    NewApiKeySerializer,
    ScrapeTargetSerializer,
    ServiceWhySerializer,
    StateSerializer,
    StateShownSerializer,
    TenantSerializer,
    UndoSerializer,
    WhySerializer,
    ZoneSerializer,
)
from registry.services import keys, operator, tenants
from registry.timeline import Timeline


class ApiKeyFilter(filters.FilterSet):
    revoked = filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = ApiKey
        fields = ["name"]


class ApiKeys(TenantResource):
    """API keys of the tenant. Deleting one revokes it; its row stays for the audit."""

    queryset = ApiKey.objects.all()
    serializer_class = ApiKeySerializer
    filterset_class = ApiKeyFilter
    lookup_field = "public_id"
    scopes: ClassVar = {"read": "admin", "write": "admin"}
    http_method_names = ["get", "head", "options", "post", "patch", "delete"]

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return NewApiKeySerializer if self.action == "create" else ApiKeySerializer

    def perform_create(self, serializer: BaseSerializer[Any]) -> None:
        self._only_what_may_be_granted(serializer.validated_data)
        made = keys.create_key(self.caller.actor, self.caller.tenant, **serializer.validated_data)
        made.row.secret = made.secret  # type: ignore[attr-defined]  # shown by this one answer, stored nowhere
        serializer.instance = made.row

    def prepare(self, row: Any, fields: dict[str, Any]) -> None:
        self._only_what_may_be_granted(fields)

    def perform_destroy(self, instance: Any) -> None:
        keys.revoke_key(self.caller.actor, instance)

    def _only_what_may_be_granted(self, fields: dict[str, Any]) -> None:
        if not keys.may_grant(self.caller.tenant, fields.get("scopes", ()), platform=self.caller.platform):
            raise Problem("scope_missing", "Only who runs the installation gives scope admin to a key of this tenant.")


class Tenants(TenantResource):
    """Tenants. Who runs the installation sees and writes all of them; everybody else sees their own."""

    queryset = Tenant.objects.prefetch_related("hosts")
    serializer_class = TenantSerializer
    filterset_fields: ClassVar = ["active"]
    scopes: ClassVar = {"read": "registry:read", "write": "admin"}

    def get_queryset(self) -> models.QuerySet[Any]:
        rows = Tenant.objects.prefetch_related("hosts")
        if getattr(self, "swagger_fake_view", False):
            return rows.none()
        return rows if self.caller.platform else rows.filter(pk=self.caller.tenant.pk)

    def new(self) -> Tenant:
        return Tenant()

    def store(self, action: str, row: Any, fields: dict[str, Any]) -> Any:
        self._only_platform()
        hosts = fields.pop("hosts", None)
        for name, value in fields.items():
            setattr(row, name, value)
        tenants.save_tenant(self.caller.actor, row, hosts=hosts)
        return self.get_queryset().get(pk=row.pk)

    def perform_destroy(self, instance: Any) -> None:
        self._only_platform()
        tenants.delete_tenant(self.caller.actor, instance)

    def _only_platform(self) -> None:
        if not self.caller.platform:
            raise Problem("scope_missing", "Only who runs the installation manages tenants.")


class OperatorView(APIView):
    """What operators say; a subclass finds whom they mean, by what stands in the path."""

    scopes: ClassVar = {"write": "registry:write"}

    def target(self, caller: Caller, name: str, id: str = "") -> Service | Instance | Zone:
        return operator.find_target(caller.actor, caller.tenant, name, id)

    def set(self, request: Request, **named: str) -> Response:
        wanted = StateSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        caller = caller_of(request)
        target = operator.set_state(caller.actor, self.target(caller, **named), **wanted.validated_data)
        return Response(StateShownSerializer(target).data)

    def undo(self, request: Request, **named: str) -> Response:
        wanted = UndoSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        caller = caller_of(request)
        target = operator.undo(caller.actor, self.target(caller, **named), **wanted.validated_data)
        return Response(StateShownSerializer(target).data)


class ServiceState(OperatorView):
    """What an operator wants of a whole service. It comes before what is wanted of a zone."""

    @extend_schema(operation_id="services_state", request=StateSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str) -> Response:
        return self.set(request, name=name)


class ServiceStateUndo(OperatorView):
    """Back to what was wanted of the service before the last change."""

    @extend_schema(operation_id="services_state_undo", request=UndoSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str) -> Response:
        return self.undo(request, name=name)


class InstanceState(OperatorView):
    """What an operator wants of one instance. Its own state comes before its service's."""

    @extend_schema(operation_id="services_instance_state", request=StateSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str, id: str) -> Response:
        return self.set(request, name=name, id=id)


class InstanceStateUndo(OperatorView):
    """Back to what was wanted of the instance before the last change."""

    @extend_schema(operation_id="services_instance_state_undo", request=UndoSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str, id: str) -> Response:
        return self.undo(request, name=name, id=id)


class ZoneOperatorView(OperatorView):
    def target(self, caller: Caller, name: str, id: str = "") -> Zone:
        return operator.find_zone(caller.tenant, name)


class ZoneState(ZoneOperatorView):
    """What an operator wants of every instance in a zone of whose service, or of which itself, nothing else is said."""

    @extend_schema(operation_id="zones_state", request=StateSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str) -> Response:
        return self.set(request, name=name)


class ZoneStateUndo(ZoneOperatorView):
    """Back to what was wanted of the zone before the last change."""

    @extend_schema(operation_id="zones_state_undo", request=UndoSerializer, responses=StateShownSerializer)
    def post(self, request: Request, name: str) -> Response:
        return self.undo(request, name=name)


class Zones(GenericAPIView[Any]):
    """The zones that instances of the tenant run in, and what operators want of them."""

    scopes: ClassVar = {"read": "registry:read"}
    serializer_class = ZoneSerializer
    queryset = Zone.objects.none()
    filter_backends = ()

    @extend_schema(operation_id="zones_list", responses=ZoneSerializer(many=True))
    def get(self, request: Request) -> Response:
        page: Any = self.paginate_queryset(selectors.zones(caller_of(request).tenant))
        return self.get_paginated_response(ZoneSerializer(page, many=True).data)


class InstanceWhy(APIView):
    """The sentence why an instance gets traffic or does not, and the findings behind it."""

    scopes: ClassVar = {"read": "registry:read"}

    @extend_schema(responses=WhySerializer)
    def get(self, request: Request, name: str, id: str) -> Response:
        found = why.why_of(caller_of(request).tenant, name, id, time.time())
        if found is None:
            raise Problem("not_found", "There is no such instance.")
        return Response(WhySerializer({"name": name, "instance_id": id, **found._asdict()}).data)


class ServiceWhy(APIView):
    """The sentence why a service gets traffic or does not, and the same of each of its instances."""

    scopes: ClassVar = {"read": "registry:read"}

    @extend_schema(operation_id="services_why", responses=ServiceWhySerializer)
    def get(self, request: Request, name: str) -> Response:
        found = why.why_service(caller_of(request).tenant, name, time.time())
        if found is None:
            raise Problem("not_found", "There is no such service.")
        instances = [{"instance_id": id, **one._asdict()} for id, one in found.instances.items()]
        return Response(ServiceWhySerializer({"name": name, **found._asdict(), "instances": instances}).data)


class HistoryView(GenericAPIView[Any]):
    """What happened: who joined and left, versions, operators' words, and how health went. Newest first, 90 days."""

    scopes: ClassVar = {"read": "registry:read"}
    serializer_class = EntrySerializer
    queryset = Service.objects.none()
    filter_backends = ()

    def told(self, request: Request, name: str, id: str = "") -> Response:
        tenant = caller_of(request).tenant
        timeline: Any = Timeline(tenant, name, id)
        if not Service.objects.filter(tenant=tenant, name=name).exists() and not timeline.count():
            raise Problem("not_found", "There is no such service.")
        page = self.paginate_queryset(timeline)
        return self.get_paginated_response(EntrySerializer(page, many=True).data)


class ServiceHistory(HistoryView):
    """What happened to a service and its instances, newest first; kept for 90 days."""

    @extend_schema(operation_id="services_history", responses=EntrySerializer(many=True))
    def get(self, request: Request, name: str) -> Response:
        return self.told(request, name)


class InstanceHistory(HistoryView):
    """What happened to an instance, and to its service as a whole, newest first; kept for 90 days."""

    @extend_schema(operation_id="services_instance_history", responses=EntrySerializer(many=True))
    def get(self, request: Request, name: str, id: str) -> Response:
        return self.told(request, name, id)


class ScrapeTargets(APIView):
    """Prometheus HTTP service discovery: every live instance of the tenant that speaks HTTP."""

    scopes: ClassVar = {"read": "registry:read"}

    @extend_schema(responses=ScrapeTargetSerializer(many=True))
    def get(self, request: Request) -> Response:
        return Response(list(selectors.scrape_targets(caller_of(request).tenant)))
