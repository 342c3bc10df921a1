"""Rounds in which each has its turn, and the table of what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.stats import Table, ratios, spread
from benchmarks.workloads import Sample

HEADER: Final = ("", "requests/s", "p50 ms", "p99 ms", "failed", "CPU µs", "busy %", "RSS MB", "PSS MB")
Rounds = dict[str, list[Sample]]


def interleave(cases: Mapping[str, Callable[[], Sample]], rounds: int) -> Rounds:
    """Each in turn, round by round; each round begins with another one."""
    found: Rounds = {name: [] for name in cases}
    names = list(cases)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(cases[name]())
    return found


def table_of(title: str, found: Rounds) -> Table:
    """Medians, and what the first is to each of the others: the median of its ratios and their range."""
    first = next(iter(found))
    if len(found) == 1:
        return Table(title, HEADER, [_medians(first, found[first])])
    header = (*HEADER, *(f"{first}/it {what}" for what in ("requests/s", "CPU", "p99")))
    lines = [
        [*_medians(name, samples), *(_ratios(found[first], samples) if name != first else ("", "", ""))]
        for name, samples in found.items()
    ]
    return Table(title, header, lines)


def _medians(name: str, samples: Sequence[Sample]) -> list[str]:
    middle = Sample(*(spread(column).middle for column in zip(*samples, strict=True)))  # type: ignore[arg-type]
    rate = f"{middle.per_second:,.0f}" if middle.per_second >= 100 else f"{middle.per_second:.1f}"
    figures = (f"{middle.busy:.0f}", f"{middle.rss_mb:.0f}", f"{middle.pss_mb:.0f}")
    failed = sum(each.failed for each in samples)
    return [name, rate, f"{middle.p50_ms:.2f}", f"{middle.p99_ms:.2f}", str(failed), f"{middle.cpu_us:,.1f}", *figures]


def _ratios(mine: Sequence[Sample], theirs: Sequence[Sample]) -> list[str]:
    return [
        str(ratios([getattr(each, name) for each in mine], [getattr(each, name) for each in theirs]))
        for name in ("per_second", "cpu_us", "p99_ms")
    ]
