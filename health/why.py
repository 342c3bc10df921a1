"""What health knows of why an instance gets traffic: each check, its last result, and since when it stands so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from health.selectors import checked
from registry.live.instances import Instance
from registry.models import Tenant
from registry.why import Finding, Findings


def checks(tenant: Tenant, service: str, instances: Sequence[Instance], client: redis.Redis) -> Findings:
    found = checked(tenant, instances, client)
    return {name: [_finding(each) for each in shown] for name, shown in found.items()}


def _finding(shown: dict[str, Any]) -> Finding:
    """A check alone blocks nothing: the verdict over all checks is the fact `probe`."""
    what = f"{shown['check_type'].upper()} check" + (f" of {shown['path']}" if shown["path"] else "")
    since = shown["since"].timestamp() if shown["since"] else 0.0
    at = shown["checked_at"].isoformat() if shown["checked_at"] else None
    details = {"status": shown["status"], "checked_at": at, "latency": shown["latency"], "failures": shown["failures"]}
    return Finding("check", f"{what}: {shown['sentence']}", since=since, source=shown["origin"], details=details)
