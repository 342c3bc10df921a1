"""Which checks an instance gets, and what each of them asks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from health.probes import Target
from health.verdict import Thresholds
from registry.live.instances import Endpoint, Instance

INTERVALS: Final = (1.0, 86_400.0)
TIMEOUTS: Final = (0.1, 30.0)
"""A check never takes longer than this, so that a worker is never busy with one for long."""
HTTP: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Check:
    """How to ask. `id` is the row's; 0 for what an instance asked for itself, and for the default."""

    id: int
    kind: Literal["http", "tcp"]
    interval: float
    timeout: float
    endpoint: str = ""
    path: str = "/"
    thresholds: Thresholds = field(default=Thresholds())
    instance_id: str = ""
    enabled: bool = True


DEFAULT: Final = Check(id=0, kind="tcp", interval=10.0, timeout=5.0)


class Declared(msgspec.Struct):
    """`health_check` of a registration, as the fact `check` carries it."""

    check_type: Literal["http", "tcp"] = "http"
    endpoint: str = ""
    path: str = "/health"
    interval: float = 30.0
    timeout: float | None = None
    failure_threshold: int = Thresholds().failure
    success_threshold: int = Thresholds().success


_declared = msgspec.json.Decoder(Declared)


def checks_of(instance: Instance, configured: Sequence[Check]) -> list[Check]:
    """The checks of an instance: what people configured, else what it asked for, else the default.

    A check for this instance alone takes the place of its service's of the same kind. A configured check that is not
    enabled counts as configured: that is how people turn checking off.
    """
    rows = [check for check in configured if check.instance_id in {"", instance.key.id}]
    if not rows:
        return [declared(instance) or DEFAULT]
    own = {check.kind for check in rows if check.instance_id}
    return [check for check in rows if check.enabled and (check.instance_id or check.kind not in own)]


def declared(instance: Instance) -> Check | None:
    """The check that an instance asked for when it registered."""
    fact = instance.facts.get("check")
    if fact is None:
        return None
    try:
        wish = _declared.decode(fact.value)
    except msgspec.DecodeError:
        return None
    return Check(
        id=0,
        kind=wish.check_type,
        interval=_within(wish.interval, INTERVALS),
        timeout=_within(min(10.0, wish.interval / 2) if wish.timeout is None else wish.timeout, TIMEOUTS),
        endpoint=wish.endpoint,
        path=wish.path,
        thresholds=Thresholds(max(wish.success_threshold, 1), max(wish.failure_threshold, 1)),
    )


def target_of(instance: Instance, check: Check) -> Target | None:
    """What the check asks of this instance; None when it has no such endpoint."""
    endpoint = _endpoint(instance.document.endpoints, check)
    if endpoint is None:
        return None
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    return Target(check.kind, endpoint.host, endpoint.port, check.timeout, path, tls=endpoint.protocol == "https")


def _endpoint(endpoints: dict[str, Endpoint], check: Check) -> Endpoint | None:
    if check.endpoint:
        return endpoints.get(check.endpoint)
    listed = list(endpoints.values())
    if check.kind == "http":
        listed = [each for each in listed if each.protocol in HTTP] or listed
    return listed[0] if listed else None


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
