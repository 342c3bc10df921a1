"""The sections of the document: what is in each, how it is shown, and the API's own resource that writes it.

Entries are validated by the serializers of the API and stored by the code behind its views, so that a file can do
nothing that a request cannot, and leaves the same audit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

from django.db import models
from rest_framework.fields import empty
from rest_framework.serializers import Serializer

from gateway.views import BreakerPolicies, JwtIssuers, RateLimitPolicies, Routes, Upstreams
from health.models import HealthCheck
from health.serializers import CheckSerializer
from registry.auth import Caller
from registry.models import Service
from registry.resources import TenantResource
from registry.serializers import StrictModel, checked
from registry.services.catalogue import check_service_name, ensure_service

Entry = dict[str, Any]
Identity = tuple[Any, ...]


@dataclass(frozen=True)
class Asker:
    """Stands where views and serializers look for a request: it says who asks, and for which tenant."""

    auth: Caller


class ServiceSerializer(StrictModel):
    class Meta:
        model = Service
        fields: ClassVar = ["name", "description"]

    def validate_name(self, name: str) -> str:
        checked(check_service_name, name)
        return name


class Services(TenantResource):
    queryset = Service.objects.select_related("tenant")
    serializer_class = ServiceSerializer
    scopes: ClassVar = {}


class Checks(TenantResource):
    queryset = HealthCheck.objects.select_related("service__tenant")
    serializer_class = CheckSerializer
    owner = "service__tenant"
    scopes: ClassVar = {}

    def new(self) -> HealthCheck:
        return HealthCheck()

    def prepare(self, row: Any, fields: Entry) -> None:
        row.service = ensure_service(self.caller.actor, self.caller.tenant, fields.pop("service_name"))


@dataclass(frozen=True)
class Section:
    """One list of the document. `identity` names the fields by which an entry and a row are the same thing."""

    name: str
    resource: type[TenantResource]
    identity: tuple[str, ...] = ("name",)

    def view(self, asker: Asker) -> TenantResource:
        return self.resource(request=asker)

    def rows(self, asker: Asker) -> models.QuerySet[Any]:
        return self.view(asker).get_queryset().order_by("pk")

    def serializer(self, asker: Asker, *arguments: Any, **options: Any) -> Serializer[Any]:
        made: Any = self.resource.serializer_class  # each resource names its own
        return cast("Serializer[Any]", made(*arguments, context={"request": asker}, **options))

    def entries(self, asker: Asker) -> dict[Identity, tuple[Entry, Any]]:
        """What the tenant has, in the order of its names: each as an entry of the file, with its row."""
        serializer = self.serializer(asker)
        found = {}
        for row in self.rows(asker):
            entry = self.short(serializer, serializer.to_representation(row))
            found[self.identity_of(entry)] = (entry, row)
        return dict(sorted(found.items(), key=lambda item: [str(part) for part in item[0]]))

    def identity_of(self, entry: Entry) -> Identity:
        """What makes a short entry the one it is; parts that it leaves out have their defaults."""
        identity = tuple(entry.get(name, _IDENTITY_DEFAULTS.get(name, "")) for name in self.identity)
        return tuple(part if isinstance(part, str) else json.dumps(part) for part in identity)

    def title(self, entry: Entry) -> str:
        """What people call the entry."""
        parts = (entry.get(name, _SAID_DEFAULTS.get(name, "")) for name in self.identity)
        return " ".join(str(part) for part in parts if part)

    def short(self, serializer: Serializer[Any], entry: Entry) -> Entry:
        """The entry without what goes without saying, its fields in the order of the API."""
        entry = _SHORTER.get(self.name, dict)(entry)
        fields = serializer.fields
        kept = {
            name: entry[name]
            for name, field in fields.items()
            if name in entry and not field.read_only and not is_same(entry[name], _default(field))
        }
        return kept | {name: value for name, value in entry.items() if name not in fields}


def is_same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    return bool(one == other)


def is_blank(field: Any) -> bool:
    """Whether leaving this text out means that it is empty, which the serializer would take for: as it was."""
    return field.default is empty and getattr(field, "allow_blank", False)


def _default(field: Any) -> Any:
    if field.default is empty:
        return "" if is_blank(field) else empty
    return field.default() if callable(field.default) else field.default


def _short_route(entry: Entry) -> Entry:
    """One plain target is said as `service`."""
    entry = dict(entry)
    targets = entry.get("targets")
    if isinstance(targets, list) and all(isinstance(each, dict) for each in targets):
        entry["targets"] = targets = [_short_target(each) for each in targets]
        if len(targets) == 1 and targets[0].keys() == {"service"} and entry.get("service") in {None, _name(targets[0])}:
            entry["service"] = _name(targets[0])
            del entry["targets"]
        elif entry.get("service") in {None, _name(targets[0]) if len(targets) == 1 else None}:
            entry.pop("service", None)
    return entry


def _short_target(target: Entry) -> Entry:
    return {name: value for name, value in target.items() if not is_same(value, _TARGET_DEFAULTS.get(name, empty))}


def _name(target: Entry) -> Any:
    name = target.get("service")
    return name if isinstance(name, str) else json.dumps(name)


def _short_check(entry: Entry) -> Entry:
    """A TCP check has no path, whatever the model's default says."""
    tcp = entry.get("check_type") == HealthCheck.Type.TCP
    return {name: value for name, value in entry.items() if not (tcp and name == "path" and value in ("", "/health"))}


_TARGET_DEFAULTS: Final = {"weight": 100, "version": "", "tags": [], "header": None, "cookie": None}
_SHORTER: Final = {"routes": _short_route, "health_checks": _short_check}
_SAID_DEFAULTS: Final = {"check_type": "http"}
_IDENTITY_DEFAULTS: Final = {"check_type": "http", "path": "/health"}

# In the order in which they need one another.
SECTIONS: Final = (
    Section("services", Services),
    Section("rate_limit_policies", RateLimitPolicies),
    Section("breaker_policies", BreakerPolicies),
    Section("jwt_issuers", JwtIssuers),
    Section("upstreams", Upstreams, ("service",)),
    Section("health_checks", Checks, ("service_name", "instance_id", "check_type", "endpoint", "path")),
    Section("routes", Routes),
)
