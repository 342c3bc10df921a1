"""What the gateway knows of why an instance gets traffic: the breaker, and the versions that routes ask for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import redis
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from gateway.control.breakers import Breaker, merge, reports_now
from gateway.models import RouteTarget
from gateway.proxy.reports import FORCE, Force
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
    targets = list(rows.select_related("route").order_by("route__name", "pk"))
    if not targets:
        return {"": [Finding("route", f"No route leads to {service}; whoever asks the registry still finds it")]}
    found: dict[str, list[Finding]] = {"": [_routes(service, targets)]}
    for instance in instances:
        found[instance.key.id] = list(_versions(instance.document.version, targets))
    return found


def _routes(service: str, targets: Iterable[RouteTarget]) -> Finding:
    names = list(dict.fromkeys(each.route.name for each in targets))
    return Finding("route", f"Routes to {service}: {', '.join(names)}", details={"routes": names})


def _versions(version: str, targets: Sequence[RouteTarget]) -> Iterator[Finding]:
    shut = [each for each in targets if not _fits(version, each.version)]
    for each in shut:
        yield Finding(
            "version",
            f"Route {each.route.name} asks for version {each.version}, and this is {version or 'of no version'}",
            blocks=len(shut) == len(targets),
            details={"route": each.route.name, "version": each.version},
        )


def _fits(version: str, wanted: str) -> bool:
    """As the data plane decides it."""
    if not wanted:
        return True
    try:
        return Version(version) in SpecifierSet(wanted, prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False
