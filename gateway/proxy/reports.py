"""What the gateway's workers tell through Redis, and what operators tell them: keys, forms and how to read them.

`recorder.py` says what it counts, `guard.py` when it reports; the API and the live page read it all here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

logger = logging.getLogger("anumate.reports")

COUNTERS: Final = "anumate:{g}:counters"
REPORTS: Final = "anumate:{g}:breakers"
FORCE: Final = "anumate:{g}:force"
FORCE_CHANNEL: Final = "anumate:force"

State = Literal["closed", "open", "half_open"]
Action = Literal["open", "close", "reset"]


class BreakerReport(msgspec.Struct, frozen=True):
    """One breaker in a worker's report."""

    tenant: str
    service: str
    state: State
    name: str = ""
    forced: bool = False
    generation: int = 0
    reason: str = ""
    seconds_in_state: float = 0.0
    retry_in: float = 0.0
    calls: int = 0
    failures: int = 0
    slow_calls: int = 0
    failure_rate: float = 0.0
    consecutive_failures: int = 0
    trials_out: int = 0
    recovered: bool = False


class LeftOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """An instance that a worker gives no requests for `seconds` more, as long as there is another one."""

    tenant: str
    service: str
    instance: str
    seconds: float
    reason: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """A route, upstream or policy of the table that a worker cannot serve, with the sentence why."""

    tenant: str
    name: str
    sentence: str


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker's breakers, as it saw them at `at`, the revision of the routing table that it serves (0: none), the
    instances that it leaves out, and what it cannot serve of the table.
    """

    worker: str
    at: float
    breakers: tuple[BreakerReport, ...] = ()
    table_revision: int = 0
    left_out: tuple[LeftOut, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class Force(msgspec.Struct, frozen=True):
    """What an operator wants of a service's breaker."""

    action: Action
    generation: int
    actor: str = ""
    reason: str = ""
    at: float = 0.0


_report_decoder = msgspec.json.Decoder(WorkerReport)


def key_of_report(worker: str) -> str:
    return f"{REPORTS}:{worker}"


def read_reports(found: Iterable[tuple[str, bytes | None]]) -> Iterator[WorkerReport]:
    """Out of workers and what they wrote. Who ended has no report; one that cannot be read hides no other."""
    for worker, body in found:
        if not body:
            continue
        try:
            yield _report_decoder.decode(body)
        except msgspec.MsgspecError as error:
            logger.warning("The report of worker %s cannot be read: %s", worker, error)


class Counter(NamedTuple):
    """What a field of `COUNTERS` counts: requests, their seconds, or those within the `bound` of a bucket."""

    tenant: str
    route: str
    service: str
    status: int
    kind: Literal["requests", "seconds", "bucket"]
    bound: float = 0.0


def read_counter(field: str) -> Counter | None:
    """None for a field that is not one of the recorder's."""
    match field.split("|"):
        case [tenant, route, service, status] if status.isdecimal():
            return Counter(tenant, route, service, int(status), "requests")
        case [tenant, route, service, status, "sum"] if status.isdecimal():
            return Counter(tenant, route, service, int(status), "seconds")
        case [tenant, route, service, status, "le", bound] if status.isdecimal():
            return Counter(tenant, route, service, int(status), "bucket", float(bound))
    return None


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The seconds within which `share` of the requests was answered, by a straight line within its bucket.

    `buckets` has, by their upper bounds, how many took up to the bound and longer than the bound before.
    """
    total = sum(buckets.values())
    if total <= 0:
        return None
    wanted, seen, low = share * total, 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count and seen + count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - seen) / count
        seen += count
        low = low if bound == float("inf") else bound
    return low
