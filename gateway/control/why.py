"""What the gateway knows of why an instance gets traffic: the breaker, and the versions that routes ask for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import redis
from packaging.specifiers import InvalidSpecifier

from gateway.control.breakers import Breaker, merge, reports_now
from gateway.models import RouteTarget
from gateway.proxy.reports import FORCE, Force
from gateway.proxy.selection import Selection
from gateway.proxy.table import Target
from registry.live.instances import Instance
from registry.models import Tenant
from registry.why import Finding, Findings


def breaker(tenant: Tenant, service: str, instances: Sequence[Instance], client: redis.Redis) -> Findings:
    """The state of the service's circuit breaker, why it is so, and who forced it."""
    reports = (each for each in reports_now(client) if (each.tenant, each.service) == (tenant.name, service))
    merged = merge(reports, [service])[0]
    raw: Any = client.hget(FORCE, f"{tenant.name}/{service}")
    return {"": [_breaker(merged, msgspec.json.decode(raw, type=Force) if raw and merged.forced else None)]}


def _breaker(found: Breaker, force: Force | None) -> Finding:
    state = found.state.replace("_", "-")
    by = f", forced by {force.actor}" if force else ", forced" if found.forced else ""
    reason = found.reason or (force.reason if force else "")
    return Finding(
        "breaker",
        f"The circuit breaker of {found.service} is {state}{by}" + (f": {reason}" if reason else ""),
        blocks=found.state == "open" and found.open_workers == found.workers,
        since=time.time() - found.seconds_in_state if found.workers else 0.0,
        source=force.actor if force else "",
        details={"state": found.state, "forced": found.forced, "open_workers": found.open_workers},
    )


def versions(tenant: Tenant, service: str, instances: Sequence[Instance], client: redis.Redis) -> Findings:
    """Which routes lead to the service, and which of them pass an instance over for its version."""
    rows = RouteTarget.objects.filter(route__tenant=tenant, service__name=service, route__enabled=True)
    targets = list(rows.select_related("route", "service").order_by("route__name", "pk"))
    if not targets:
        return {"": [Finding("route", f"No route leads to {service}; whoever asks the registry still finds it")]}
    found: dict[str, list[Finding]] = {"": [_routes(service, targets)]}
    for instance in instances:
        found[instance.key.id] = list(_passed_over(instance, targets))
    return found


def _routes(service: str, targets: Iterable[RouteTarget]) -> Finding:
    names = list(dict.fromkeys(each.route.name for each in targets))
    return Finding("route", f"Routes to {service}: {', '.join(names)}", details={"routes": names})


def _passed_over(instance: Instance, targets: Sequence[RouteTarget]) -> Iterator[Finding]:
    """By the rule that the data plane selects with."""
    shut = [(each, why) for each in targets if (why := _why_not(each, instance))]
    for each, why in shut:
        yield Finding(
            "version",
            f"Route {each.route.name} passes it over: {why[0].lower()}{why[1:].rstrip('.')}",
            blocks=len(shut) == len(targets),
            details={"route": each.route.name, "version": each.version, "tags": list(each.tags)},
        )


def _why_not(target: RouteTarget, instance: Instance) -> str:
    try:
        selection = Selection(Target(target.service.name, version=target.version, tags=tuple(target.tags)))
    except InvalidSpecifier:
        return f"{target.version} is no version specifier."
    return selection.why_not(instance)
