from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from health.verdict import Outcome, Streak, Thresholds, judge, worst

OUTCOMES = {
    "P": Outcome("passed", "fine"),
    "W": Outcome("warned", "slow down"),
    "F": Outcome("failed", "broken"),
}
SHORT = {"healthy": "passing", "degraded": "warning", "unhealthy": "critical", "unknown": "-"}


def verdicts(results: str, thresholds: Thresholds) -> list[str]:
    streak, seen = Streak(), []
    for at, result in enumerate(results):
        streak = judge(streak, OUTCOMES[result], thresholds, float(at))
        seen.append(SHORT[streak.verdict])
    return seen


@pytest.mark.parametrize(
    ("success", "warning", "failure", "results", "expected"),
    [
        (0, 0, 0, "PFP", ["passing", "critical", "passing"]),
        (3, 3, 3, "P", ["passing"]),
        (3, 3, 3, "F", ["critical"]),
        (3, 3, 3, "PFFF", ["passing", "passing", "passing", "critical"]),
        (3, 3, 3, "PFFPFFF", ["passing"] * 6 + ["critical"]),
        (1, 2, 4, "PFFFF", ["passing", "passing", "warning", "warning", "critical"]),
        (3, 3, 3, "FPPP", ["critical", "critical", "critical", "passing"]),
    ],
)
def test_it_agrees_with_consul(success: int, warning: int, failure: int, results: str, expected: list[str]) -> None:
    assert verdicts(results, Thresholds(success, failure, warning)) == expected


def test_a_warning_is_a_success_that_degrades() -> None:
    assert verdicts("PWP", Thresholds(2, 3)) == ["passing", "warning", "passing"]
    assert verdicts("FWW", Thresholds(2, 3)) == ["critical", "critical", "warning"]


def test_a_failure_never_makes_a_verdict_better() -> None:
    assert verdicts("FPF", Thresholds(success=2, warning=1, failure=3)) == ["critical"] * 3


def test_a_verdict_keeps_since_when_and_why() -> None:
    healthy = judge(Streak(), OUTCOMES["P"], Thresholds(1, 1), 10.0)
    same = judge(healthy, Outcome("passed", "still fine"), Thresholds(1, 1), 11.0)
    broken = judge(same, OUTCOMES["F"], Thresholds(1, 1), 12.0)

    assert (same.verdict, same.since, same.sentence) == ("healthy", 10.0, "fine")
    assert (broken.verdict, broken.since, broken.sentence) == ("unhealthy", 12.0, "broken")


def test_the_worst_check_speaks_for_the_instance() -> None:
    fine, ill, slow, new = Streak("healthy", 1.0), Streak("unhealthy", 3.0), Streak("degraded", 2.0), Streak()
    assert worst([fine, ill, slow, new]) == ill
    assert worst([fine, slow]) == slow
    assert worst([new, fine]) == fine
    assert worst([new]) == new


@given(st.lists(st.sampled_from("PWF"), min_size=1), st.integers(1, 5), st.integers(1, 5))
def test_it_is_unhealthy_only_after_enough_failures_in_a_row(results: list[str], success: int, failure: int) -> None:
    thresholds = Thresholds(success, failure)
    streak = Streak()
    for at, result in enumerate(results):
        before, streak = streak, judge(streak, OUTCOMES[result], thresholds, float(at))
        if streak.verdict == "unhealthy" != before.verdict != "unknown":
            assert results[at + 1 - failure : at + 1] == ["F"] * failure
        if before.verdict == "unhealthy" != streak.verdict:
            assert "F" not in results[at + 1 - success : at + 1]
    assert streak.verdict != "unknown"
