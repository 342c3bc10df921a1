"""Edits of routes and upstreams that touch more than one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gateway.control import rules
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


def check_room(route: Route) -> None:
    """A route with a regular expression can be tried beside the others of its hosts, as it is about to be saved.

    Raises:
        ValidationError: it would be left out.
    """
    if route.path_type != Route.PathType.REGEX or not route.enabled:
        return
    beside: dict[str, list[str]] = {host: [] for host in _folded(route.hosts)}
    others = Route.objects.filter(tenant=route.tenant_id, enabled=True, path_type=Route.PathType.REGEX)
    for hosts, path in others.exclude(pk=route.pk).values_list("hosts", "path"):
        for host in _folded(hosts) & beside.keys():
            beside[host].append(path)
    rules.check_room(route.path, beside)


def _folded(hosts: Iterable[str]) -> set[str]:
    """Without any: every host."""
    return {host.lower() for host in hosts} or {""}
