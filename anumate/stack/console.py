"""What the terminal shows: progress, then one block, then what the programs say, each line with its name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TextIO

DIM, BOLD, GREEN, RED, PLAIN = "2", "1", "32", "31", "0"
NAME_COLOURS = ("36", "35", "33", "34", "32", "96", "95", "93", "94", "92")


class Console:
    """Writes for people. Colour only where a terminal can show it and nobody said NO_COLOR."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.colour = out.isatty() and not os.environ.get("NO_COLOR")
        self.show_programs = False
        """Whether lines of programs are shown; off while starting, so that progress stays readable."""
        self._colours: dict[str, str] = {}

    def progress(self, name: str, what: str, seconds: float) -> None:
        self._step(self._paint("✓", GREEN), name, what, seconds)

    def warn(self, name: str, what: str, seconds: float) -> None:
        self._step(self._paint("!", RED), name, what, seconds)

    def event(self, name: str, what: str) -> None:
        """Something the supervisor has to say about a program. A start that fails because of it says so itself."""
        if self.show_programs:
            self._write(f"{self._prefix(name)} {self._paint(what, BOLD)}")

    def line(self, name: str, text: str) -> None:
        if self.show_programs:
            self._write(f"{self._prefix(name)} {text}")

    def error(self, sentence: str, details: Iterable[str] = ()) -> None:
        for detail in details:
            self._write(f"  {self._paint('│', DIM)} {detail}")
        self._write(f"{self._paint('anumate:', RED)} {sentence}")

    def block(self, title: str, rows: Iterable[tuple[str, str]], *, closing: str = "") -> None:
        lines = ["", f"  {self._paint(title, BOLD)}", ""]
        lines += [f"  {self._paint(f'{label:<11}', DIM)} {value}".rstrip() for label, value in rows]
        if closing:
            lines += ["", f"  {self._paint(closing, DIM)}"]
        self._write("\n".join([*lines, ""]))

    def say(self, text: str) -> None:
        self._write(text)

    def _step(self, mark: str, name: str, what: str, seconds: float) -> None:
        self._write(f"  {mark} {name:<10} {what} {self._paint(f'{seconds:.1f} s', DIM)}")

    def _prefix(self, name: str) -> str:
        colour = self._colours.setdefault(name, NAME_COLOURS[len(self._colours) % len(NAME_COLOURS)])
        return self._paint(f"{name:<11} │", colour)

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[{PLAIN}m" if self.colour else text

    def _write(self, text: str) -> None:
        try:
            self.out.write(text + "\n")
            self.out.flush()
        except (OSError, ValueError):
            pass  # the terminal is gone; stopping in order matters more than saying so
