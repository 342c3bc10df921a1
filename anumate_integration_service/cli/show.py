"""Tables and words for a terminal. Colour is never the only sign: every status is a mark and a word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

STYLES = {
    "healthy": ("●", "green"),
    "closed": ("●", "green"),
    "enabled": ("●", "green"),
    "degraded": ("▲", "yellow"),
    "half_open": ("▲", "yellow"),
    "draining": ("▲", "yellow"),
    "unhealthy": ("✖", "red"),
    "open": ("✖", "red"),
    "maintenance": ("◆", "blue"),
    "unknown": ("○", "dim"),
}


def as_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def word(status: str) -> str:
    mark, style = STYLES.get(status, ("·", "default"))
    return f"[{style}]{mark} {escape(status)}[/]"


def text(value: object) -> str:
    return escape(str(value)) if value not in (None, "") else "[dim]–[/]"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are rich markup: `word` and `text` make them."""
    shown = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        shown.add_row(*row)
    console().print(shown)


def line(markup: str) -> None:
    console().print(markup, highlight=False)


def console() -> Console:
    # A pipe has no width; a narrow default would cut names that scripts look for.
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)
