"""Tables and words for a terminal, plain columns for a pipe. Colour is never the only sign: every status is a mark
and a word."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

STYLES = {
    "healthy": ("●", "green"),
    "closed": ("●", "green"),
    "enabled": ("●", "green"),
    "ok": ("●", "green"),
    "degraded": ("▲", "yellow"),
    "half_open": ("▲", "yellow"),
    "draining": ("▲", "yellow"),
    "warning": ("▲", "yellow"),
    "unhealthy": ("✖", "red"),
    "open": ("✖", "red"),
    "problem": ("✖", "red"),
    "maintenance": ("◆", "blue"),
    "unknown": ("○", "dim"),
}
GAP = 2
# A column this narrow is not worth breaking.
UNBROKEN = 14
# A longer text may as well be read in several lines, this wide at least.
READABLE = 30
# What would steer the terminal, or turn the direction of what follows.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


def as_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def as_json_line(value: Any) -> None:
    """One of many, as it comes."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def word(status: str) -> str:
    mark, style = STYLES.get(status, ("·", "default"))
    return f"[{style}]{mark} {escape(printable(status))}[/]"


def text(value: object) -> str:
    return escape(printable(str(value))) if value not in (None, "") else "[dim]–[/]"


def printable(value: str) -> str:
    """One line that changes nothing but the text on the screen."""
    return _CONTROLS.sub(" ", value)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()) -> None:
    """Cells are rich markup: `word` and `text` make them. A narrow terminal goes without the columns in `spare`, the
    last one first."""
    console().print(laid_out(columns, rows, spare=spare))


def laid_out(columns: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()) -> RenderableType:
    cells = [[Text.from_markup(cell) for cell in row] for row in rows]
    widths = [max(cell_len(name), *(row[at].cell_len for row in cells), 0) for at, name in enumerate(columns)]
    if not sys.stdout.isatty():
        return _plain(columns, cells, widths)
    kept = _kept(columns, widths, spare, console().width)
    shown = Table(
        *(Column(columns[at], overflow="fold", no_wrap=widths[at] <= UNBROKEN) for at in kept),
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, GAP, 0, 0),
    )
    for row in cells:
        shown.add_row(*(row[at] for at in kept))
    if left_out := [name for at, name in enumerate(columns) if at not in kept]:
        shown.caption = f"{', '.join(left_out)}: in a wider terminal, or with --json"
        shown.caption_justify = "left"
    return shown


def _kept(columns: Sequence[str], widths: Sequence[int], spare: Sequence[str], room: int) -> list[int]:
    kept = list(range(len(columns)))
    for name in reversed(spare):
        if sum(min(widths[at], READABLE) + GAP for at in kept) - GAP <= room:
            break
        kept.remove(columns.index(name))
    return kept


def _plain(columns: Sequence[str], rows: list[list[Text]], widths: Sequence[int]) -> Text:
    """Nothing is cut and nothing broken: a script looks for whole names in lines."""
    lines = [list(columns), *([cell.plain for cell in row] for row in rows)]
    padded = (
        (" " * GAP).join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
    return Text("\n".join(line.rstrip() for line in padded), no_wrap=True, overflow="ignore")


def line(markup: str) -> None:
    console().print(markup, highlight=False, soft_wrap=not sys.stdout.isatty())


def note(sentence: str) -> None:
    """For the person, not for what reads the output."""
    sys.stderr.write(f"{printable(sentence)}\n")


def console() -> Console:
    """Colour follows the terminal, NO_COLOR and FORCE_COLOR. A pipe has no width: nothing may be cut for it."""
    return Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
