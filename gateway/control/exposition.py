"""Metrics as the text that Prometheus scrapes: its own format 0.0.4, and OpenMetrics 1.0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from rest_framework.renderers import BaseRenderer

from gateway.control.metrics import Metrics, Traffic

BREAKER_STATES = ("closed", "half_open", "open")


class Sample(NamedTuple):
    suffix: str
    labels: dict[str, str]
    value: float


class Family(NamedTuple):
    """Samples of one name. A counter's name has no `_total`: the format adds it."""

    name: str
    kind: str
    about: str
    samples: list[Sample]


def families(metrics: Metrics) -> Iterator[Family]:
    tenant = {"tenant": metrics.tenant}
    yield Family("anumate_instances", "gauge", "Live instances by health.", list(_instances(metrics, tenant)))
    yield Family(
        "anumate_eligible_instances",
        "gauge",
        "Instances that may get traffic.",
        [Sample("", {**tenant, "service": each.name}, each.eligible) for each in metrics.services],
    )
    yield Family(
        "anumate_left_out_instances",
        "gauge",
        "Instances that a gateway worker gives no requests, because of what it saw of them.",
        [Sample("", {**tenant, "service": each.name}, each.left_out) for each in metrics.services],
    )
    yield Family(
        "anumate_circuit_breaker_state",
        "gauge",
        "1 for the state a breaker is in.",
        [
            Sample("", {**tenant, "service": each.service, "state": state}, each.state == state)
            for each in metrics.breakers
            for state in BREAKER_STATES
        ],
    )
    yield Family(
        "anumate_gateway_requests",
        "counter",
        "Requests that the gateway answered.",
        [
            Sample("_total", {**tenant, "route": route, "service": service, "status": str(status)}, count)
            for (route, service), traffic in sorted(metrics.traffic.items())
            for status, count in sorted(traffic.by_status.items())
        ],
    )
    yield Family(
        "anumate_gateway_request_duration_seconds",
        "histogram",
        "How long the gateway took to answer.",
        [
            sample
            for (route, service), traffic in sorted(metrics.traffic.items())
            for sample in _histogram(traffic, {**tenant, "route": route, "service": service})
        ],
    )
    yield from _tables(metrics)


def _tables(metrics: Metrics) -> Iterator[Family]:
    for name, about, value in (
        ("revision", "Revision of the routing table that a worker of the gateway serves.", "table_revision"),
        ("lag", "Revisions that a worker is behind the published table.", "table_lag"),
        ("skipped", "Routes, upstreams and policies of the table that a worker cannot serve.", "skipped"),
    ):
        samples = [Sample("", {"worker": each.worker}, getattr(each, value)) for each in metrics.workers]
        yield Family(f"anumate_gateway_table_{name}", "gauge", about, samples)


def _instances(metrics: Metrics, tenant: Mapping[str, str]) -> Iterator[Sample]:
    for each in metrics.services:
        for health, count in each.by_health.items():
            yield Sample("", {**tenant, "service": each.name, "health": health}, count)


def _histogram(traffic: Traffic, labels: dict[str, str]) -> Iterator[Sample]:
    by_bound = {**traffic.by_bound, float("inf"): traffic.by_bound.get(float("inf"), 0)}
    bounds = sorted(by_bound)
    total = 0
    for bound, total in zip(bounds, accumulate(by_bound[bound] for bound in bounds), strict=True):
        yield Sample("_bucket", {**labels, "le": "+Inf" if bound == float("inf") else f"{bound:g}"}, total)
    yield Sample("_sum", labels, round(traffic.seconds, 6))
    yield Sample("_count", labels, total)


def text(found: Iterable[Family], *, open_metrics: bool) -> str:
    lines: list[str] = []
    for family in found:
        # Of a counter, the older format announces the whole name, OpenMetrics the name without its ending.
        name = family.name + "_total" if family.kind == "counter" and not open_metrics else family.name
        lines += [f"# HELP {name} {family.about}", f"# TYPE {name} {family.kind}"]
        lines += [
            f"{family.name}{each.suffix}{{{_labels(each.labels)}}} {_number(each.value)}" for each in family.samples
        ]
    if open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class PrometheusText(BaseRenderer):
    media_type = "text/plain"
    format = "prometheus"
    charset = None
    content_type = "text/plain; version=0.0.4; charset=utf-8"
    open_metrics = False

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return text(families(data), open_metrics=self.open_metrics).encode()


class OpenMetricsText(PrometheusText):
    media_type = "application/openmetrics-text"
    format = "openmetrics"
    content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    open_metrics = True
