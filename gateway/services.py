"""Edits of routes and upstreams that touch more than one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.models import Route, RouteTarget
from registry.live.keys import KeyRing, TenantRecord
from registry.models import TenantHost
from registry.services.catalogue import ensure_service
from registry.services.changes import Actor


def set_targets(actor: Actor, route: Route, targets: Iterable[Mapping[str, Any]]) -> None:
    """Replace where a route's requests go. Call it inside the route's `change`."""
    targets = list(targets)
    before = [(each.service.name, each.weight, each.version) for each in route.targets.select_related("service")]
    if before == [(each["service"], each["weight"], each["version"]) for each in targets]:
        return
    route.targets.all().delete()
    RouteTarget.objects.bulk_create(
        RouteTarget(
            route=route,
            service=ensure_service(actor, route.tenant, each["service"]),
            weight=each["weight"],
            version=each["version"],
        )
        for each in targets
    )


def host_owner() -> Callable[[str], str]:
    """The function that names a host's tenant, by the rule of the gateway."""
    hosts: dict[str, list[str]] = {}
    for tenant, host in TenantHost.objects.filter(tenant__active=True).values_list("tenant__name", "host"):
        hosts.setdefault(tenant, []).append(host)
    ring = KeyRing("")
    ring.replace(tenants=[TenantRecord(tenant, hosts=tuple(owned)) for tenant, owned in hosts.items()])
    return ring.tenant_of_host
