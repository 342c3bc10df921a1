from __future__ import annotations

import pytest

from anumate.faces.traffic import SERIES_POINTS, Meter, Totals, read_counters
from gateway.proxy.reports import quantile


def test_it_reads_the_recorders_fields_and_passes_over_what_is_not_theirs() -> None:
    raw = {
        b"acme|by-path|orders|200": b"90",
        b"acme|by-host|orders|503": b"10",
        b"acme|by-path|orders|200|sum": b"1.5",
        b"acme|by-path|orders|200|le|0.005": b"80",
        b"acme|by-host|orders|200|le|0.005": b"5",
        b"acme|by-path|search|404": b"3",
        b"nonsense": b"1",
        b"acme|by-path|orders|200|later-kind": b"7",
    }
    acme = read_counters(raw)["acme"]
    assert acme["orders"] == Totals(100, 10, 1.5, {0.005: 85})
    assert acme["search"] == Totals(3, 0)


def test_rates_are_of_the_last_five_seconds_and_shares_of_the_last_minute() -> None:
    meter = Meter()
    for second in range(61):
        errors = 6.0 if second else 0.0
        meter.take(float(second), {"orders": Totals(10.0 * second, errors, 0.02 * second)})
    total = meter.traffic.total
    assert total.rps == 10.0
    assert total.errors == pytest.approx(6 / 600)
    assert total.mean == pytest.approx(0.002)
    assert meter.traffic.services["orders"] == total
    assert meter.points[-1].errors == 0.0


def test_a_first_sample_tells_no_rate() -> None:
    meter = Meter()
    assert meter.take(0.0, {"orders": Totals(1_000_000)}) is None
    assert meter.traffic.total.rps == 0.0


def test_a_service_without_requests_has_no_rates() -> None:
    meter = Meter()
    for second in range(3):
        meter.take(float(second), {"idle": Totals(7), "busy": Totals(second)})
    assert set(meter.traffic.services) == {"busy"}


def test_counters_that_start_anew_give_no_negative_rate() -> None:
    meter = Meter()
    meter.take(0.0, {"orders": Totals(1000)})
    meter.take(1.0, {"orders": Totals(5)})
    assert meter.traffic.total.rps == 5.0


def test_the_series_does_not_grow_for_ever() -> None:
    meter = Meter()
    for second in range(SERIES_POINTS + 50):
        meter.take(float(second), {})
    assert len(meter.points) == SERIES_POINTS
    assert len(meter.samples) <= 62


def test_a_quantile_is_read_between_the_bounds() -> None:
    buckets = {0.01: 50.0, 0.02: 50.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.01)
    assert quantile(buckets, 0.75) == pytest.approx(0.015)
    assert quantile({0.01: 1.0, float("inf"): 99.0}, 0.95) == 0.01
    assert quantile({}, 0.95) is None
