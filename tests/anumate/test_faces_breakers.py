from __future__ import annotations

from typing import Any

import msgspec

from anumate.faces.breakers import merge_reports
from anumate.faces.picture import Breaker


def report(at: float, *breakers: dict[str, Any]) -> tuple[str, bytes]:
    return "w", msgspec.json.encode({"worker": "w", "at": at, "breakers": list(breakers)})


def breaker(state: str, seconds: float, reason: str = "") -> dict[str, Any]:
    return {
        "tenant": "acme",
        "service": "orders",
        "state": state,
        "reason": reason,
        "seconds_in_state": seconds,
        "calls": 7,
    }


def test_the_least_closed_of_all_workers_is_shown() -> None:
    merged = merge_reports(
        [report(100.0, breaker("closed", 90)), report(100.0, breaker("open", 4, "5 calls failed in a row."))]
    )
    assert merged == {"acme": {"orders": Breaker("orders", "open", "5 calls failed in a row.", 96.0)}}


def test_of_equals_the_one_that_was_first_is_shown() -> None:
    merged = merge_reports([report(100.0, breaker("open", 4)), report(100.0, breaker("open", 9))])
    assert merged["acme"]["orders"].since == 91.0


def test_a_worker_that_ended_or_cannot_be_read_hides_no_other() -> None:
    merged = merge_reports([("ended", None), ("odd", b"{not json"), report(100.0, breaker("half_open", 1))])
    assert merged["acme"]["orders"].state == "half_open"
