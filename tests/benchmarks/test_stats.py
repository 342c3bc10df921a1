"""Figures from samples, and tables from figures."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.rounds import interleave, table_of
from benchmarks.stats import Spread, Table, percentile, ratios, slope, spread
from benchmarks.workloads import Sample


def sample(per_second: float, cpu_us: float = 10.0, failed: int = 0) -> Sample:
    return Sample(per_second, 1.0, 2.0, failed, cpu_us, 99.0, 80.0, 60.0)


@pytest.mark.parametrize(("part", "expected"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.995, 100), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank_whatever_the_order(part: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_a_spread_is_the_median_with_its_range() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert str(spread([3.0, 1.0, 2.0])) == "2.00 (1.00..3.00)"


def test_ratios_are_taken_within_a_round() -> None:
    """The second round was twice as fast for both: that is the machine's doing."""
    assert ratios([10.0, 20.0], [5.0, 10.0]) == Spread(2.0, 2.0, 2.0)


def test_a_round_without_the_other_side_has_no_ratio() -> None:
    assert ratios([10.0, 20.0], [0.0, 10.0]) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="no round"):
        ratios([10.0], [0.0])


def test_a_slope_is_that_of_the_line_of_least_squares() -> None:
    assert slope([(0.0, 100.0), (1.0, 103.0), (2.0, 106.0)]) == pytest.approx(3.0)
    assert slope([(0.0, 0.0), (1.0, 2.0), (2.0, 1.0)]) == pytest.approx(0.5)


@pytest.mark.parametrize("points", [[], [(1.0, 5.0)], [(1.0, 5.0), (1.0, 9.0)]])
def test_points_without_a_line_have_no_slope(points: list[tuple[float, float]]) -> None:
    assert slope(points) == 0.0


def test_a_table_lines_up_as_text_and_is_a_table_in_markdown() -> None:
    table = Table("Speed", ("", "requests/s"), [("ours", "12"), ("a|b", "3,456")], ["One was left out."])
    assert table.text().splitlines() == [
        "Speed",
        "        requests/s",
        "  ours          12",
        "  a|b        3,456",
        "  One was left out.",
    ]
    assert table.markdown().splitlines() == [
        "### Speed",
        "",
        "|  | requests/s |",
        "| --- | ---: |",
        "| ours | 12 |",
        "| a\\|b | 3,456 |",
        "",
        "One was left out.",
    ]


def test_rounds_begin_with_another_one_each_time() -> None:
    order: list[str] = []

    def case(name: str) -> Sample:
        order.append(name)
        return sample(len(order))

    found = interleave({name: partial(case, name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"
    assert [each.per_second for each in found["a"]] == [1, 6, 8]


def test_the_table_tells_medians_failures_and_what_ours_is_to_each_other() -> None:
    found = {
        "ours": [sample(100.0, 20.0), sample(300.0, 20.0, 2)],
        "envoy": [sample(50.0, 10.0, 1), sample(100.0, 10.0)],
    }
    table = table_of("small", found)
    assert table.header[-3:] == ("ours/it requests/s", "ours/it CPU", "ours/it p99")
    assert list(table.lines[0][:5]) == ["ours", "200", "1.00", "2.00", "2"]
    assert list(table.lines[0][-3:]) == ["", "", ""]
    assert list(table.lines[1][-3:]) == ["2.50 (2.00..3.00)", "2.00 (2.00..2.00)", "1.00 (1.00..1.00)"]


def test_one_alone_is_compared_with_nobody() -> None:
    table = table_of("small", {"ours": [sample(99.5)]})
    assert len(table.header) == len(table.lines[0]) == 9
    assert table.lines[0][1] == "99.5"
