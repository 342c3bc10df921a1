"""Breaker reports of the gateway's workers, merged: one breaker per service, the least closed of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from anumate.faces.picture import Breaker, BreakerState

_GRAVITY: dict[BreakerState, int] = {"closed": 0, "half_open": 1, "open": 2}

logger = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """What the page reads of one breaker in one worker's report."""

    tenant: str
    service: str
    state: BreakerState
    reason: str = ""
    seconds_in_state: float = 0.0


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker's breakers, as it saw them at `at`."""

    at: float
    breakers: tuple[Report, ...] = ()


_decoder = msgspec.json.Decoder(WorkerReport)


def merge_reports(bodies: Iterable[bytes | None]) -> dict[str, dict[str, Breaker]]:
    """Tenant → service → breaker. A worker that ended has no report; one that cannot be read is passed over."""
    found: dict[str, dict[str, Breaker]] = {}
    for body in bodies:
        if body is None:
            continue
        try:
            report = _decoder.decode(body)
        except msgspec.DecodeError as error:
            logger.warning("A worker's breaker report cannot be read: %s", error)
            continue
        for each in report.breakers:
            services = found.setdefault(each.tenant, {})
            services[each.service] = _graver(services.get(each.service), _breaker(each, report.at))
    return found


def _breaker(report: Report, at: float) -> Breaker:
    # Whole seconds, or the same breaker would differ a little from one poll to the next.
    return Breaker(report.service, report.state, report.reason, float(round(at - report.seconds_in_state)))


def _graver(one: Breaker | None, other: Breaker) -> Breaker:
    if one is None or _GRAVITY[other.state] > _GRAVITY[one.state]:
        return other
    if other.state == one.state and other.since < one.since:
        return other
    return one
