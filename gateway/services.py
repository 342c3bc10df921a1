"""Edits of routes and upstreams that touch more than one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gateway.models import RateLimitPolicy, Route, RouteLimit, RouteTarget
from registry.live.keys import KeyRing, TenantRecord
from registry.models import TenantHost
from registry.services.catalogue import ensure_service
from registry.services.changes import Actor


def set_targets(actor: Actor, route: Route, targets: Iterable[Mapping[str, Any]]) -> None:
    """Replace where a route's requests go. Call it inside the route's `change`."""
    wanted = [{**_PLAIN, **target} for target in targets]
    kept = [{"service": each.service.name, **_told(each)} for each in route.targets.select_related("service")]
    if kept == wanted:
        return
    route.targets.all().delete()
    RouteTarget.objects.bulk_create(
        RouteTarget(route=route, **{**each, "service": ensure_service(actor, route.tenant, each["service"])})
        for each in wanted
    )


_PLAIN: Final[dict[str, Any]] = {"weight": 100, "version": "", "tags": [], "header": None, "cookie": None}


def _told(target: RouteTarget) -> dict[str, Any]:
    return {name: getattr(target, name) for name in _PLAIN}


def set_further_limits(route: Route, policies: Iterable[RateLimitPolicy]) -> None:
    """Replace the policies that a route has besides its own. Call it inside the route's `change`."""
    wanted = [policy.pk for policy in policies]
    if list(route.further_limits.values_list("policy_id", flat=True)) == wanted:
        return
    route.further_limits.all().delete()
    RouteLimit.objects.bulk_create(RouteLimit(route=route, policy_id=pk) for pk in wanted)


def host_owner() -> Callable[[str], str]:
    """The function that names a host's tenant, by the rule of the gateway."""
    hosts: dict[str, list[str]] = {}
    for tenant, host in TenantHost.objects.filter(tenant__active=True).values_list("tenant__name", "host"):
        hosts.setdefault(tenant, []).append(host)
    ring = KeyRing("")
    ring.replace(tenants=[TenantRecord(tenant, hosts=tuple(owned)) for tenant, owned in hosts.items()])
    return ring.tenant_of_host
