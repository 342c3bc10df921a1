"""Breaker reports of the gateway's workers, merged: one breaker per service, the least closed of them."""

from __future__ import annotations

from collections.abc import Iterable

from anumate.faces.picture import Breaker, BreakerState
from gateway.proxy.reports import BreakerReport, read_reports

_GRAVITY: dict[BreakerState, int] = {"closed": 0, "half_open": 1, "open": 2}


def merge_reports(reports: Iterable[tuple[str, bytes | None]]) -> dict[str, dict[str, Breaker]]:
    """Tenant → service → breaker."""
    found: dict[str, dict[str, Breaker]] = {}
    for report in read_reports(reports):
        for each in report.breakers:
            services = found.setdefault(each.tenant, {})
            services[each.service] = _graver(services.get(each.service), _breaker(each, report.at))
    return found


def _breaker(report: BreakerReport, at: float) -> Breaker:
    # Whole seconds, or the same breaker would differ a little from one poll to the next.
    return Breaker(report.service, report.state, report.reason, float(round(at - report.seconds_in_state)))


def _graver(one: Breaker | None, other: Breaker) -> Breaker:
    if one is None or _GRAVITY[other.state] > _GRAVITY[one.state]:
        return other
    if other.state == one.state and other.since < one.since:
        return other
    return one
