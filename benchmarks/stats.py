"""Figures from samples, and tables from figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest rank: the smallest value that at least `part` of all do not exceed."""
    ordered = sorted(values)
    rank = -int(-len(ordered) * part // 1)
    return ordered[max(0, min(rank, len(ordered)) - 1)]


class Spread(NamedTuple):
    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}..{self.most:.2f})"


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round: what else a machine does, it does to both sides of a pair.

    Raises ValueError when no round has both sides.
    """
    pairs = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if other]
    if not pairs:
        raise ValueError("no round has both sides")
    return spread(mine / other for mine, other in pairs)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line of least squares through points (x, y); 0 for what has no line."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


class Table(NamedTuple):
    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        cells = [list(self.header), *map(list, self.lines)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(self.header))]
        rows = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        return "\n".join([self.title, *(f"  {row}" for row in rows), *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        rule = ["---", *("---:" for _ in self.header[1:])]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in self._rows(rule)]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}", "", *rows, *notes])

    def _rows(self, rule: Sequence[str]) -> Iterable[Sequence[str]]:
        yield self.header
        yield rule
        yield from self.lines
