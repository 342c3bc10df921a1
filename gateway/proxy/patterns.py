"""Regular expressions that match a path, found without trying one after the other.

Two steps. What all paths begin with that an expression matches (RE2 knows it; it may be nothing) is kept sorted: one
bisection finds the beginnings of a path. Expressions with the same one are tried at once, by automata that take time
linear in the path, however many expressions they are made of (RE2::Set).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import re2

_AT_A_TIME: Final = 100
_LONGEST_BEGINNING: Final = 128
_LONGEST_TRIED: Final = 512
"""Bytes of a path. Each may take an automaton to a new state, and making one may take 0.1 ms: what is longer could
be made to cost more than trying each expression by itself."""
_MOST_INSTRUCTIONS: Final = 25_000
"""Of one automaton. It is compiled in one piece, for which everybody waits: 5 to 10 ms."""
_MOST_MEMORY: Final = 8 << 20
_ANY_PATH: Final = b"(?s).*"
_THROWN_AWAY: Final = re2.Options()
_THROWN_AWAY.log_errors = False


class Patterns:
    """Compiled expressions (`compile_pattern`), called by their number."""

    __slots__ = ("_beginnings", "_groups", "_shorter")

    def __init__(self, patterns: Sequence[Any]) -> None:
        groups: dict[str, list[_Numbered]] = {}
        for number, pattern in enumerate(patterns):
            groups.setdefault(beginning(pattern), []).append(_Numbered(number, pattern))
        self._beginnings = sorted(groups)
        self._shorter = _shorter(self._beginnings)
        self._groups = [list(_automata(groups[each])) for each in self._beginnings]

    def matching(self, path: str) -> list[int]:
        """The numbers of those that match the whole path, which is ASCII."""
        found: list[int] = []
        text = path.encode()
        # All that the path begins with are the one that is sorted before it, or what that one begins with.
        at = bisect_right(self._beginnings, path) - 1
        while at >= 0:
            if path.startswith(self._beginnings[at]):
                for automaton in self._groups[at]:
                    found += automaton.matching(text)
            at = self._shorter[at]
        return found

    def dismantle(self) -> None:
        """Let go of all automata, some at a time."""
        self._beginnings.clear()
        while self._groups:
            del self._groups[-_AT_A_TIME:]


def beginning(pattern: Any) -> str:
    """What everything begins with that the pattern matches as a whole."""
    # A copy is asked, and thrown away: answering leaves 5 KB with it.
    try:
        least, most = re2.compile(pattern.pattern, options=_THROWN_AWAY).possiblematchrange(_LONGEST_BEGINNING)
    except re2.error:
        return ""
    # What is sorted between two texts begins with all that both begin with.
    same = next((at for at, (one, other) in enumerate(zip(least, most, strict=False)) if one != other), len(least))
    return str(least[:same].decode("latin-1"))


def _shorter(beginnings: Sequence[str]) -> list[int]:
    """For each, where the longest other one is that it begins with; -1 for none."""
    found: list[int] = []
    for number, each in enumerate(beginnings):
        at = number - 1
        while at >= 0 and not each.startswith(beginnings[at]):
            at = found[at]
        found.append(at)
    return found


class _Numbered(NamedTuple):
    number: int
    pattern: Any


class _Automaton(NamedTuple):
    """Some expressions, and what tries them at once; None: each is tried by itself."""

    members: Sequence[_Numbered]
    tries: re2.Set | None

    def matching(self, path: bytes) -> Iterable[int]:
        if self.tries is not None and len(path) <= _LONGEST_TRIED and (found := self.tries.Match(path)):
            last = len(self.members)  # is _ANY_PATH
            return [self.members[at].number for at in found if at < last] if len(found) > 1 else ()
        # The path is long; or the automaton ran out of memory, and not even _ANY_PATH matched.
        return [number for number, pattern in self.members if pattern.fullmatch(path)]


def _automata(members: Sequence[_Numbered]) -> Iterator[_Automaton]:
    part: list[_Numbered] = []
    size = 0
    for member in members:
        instructions = member.pattern.programsize
        if part and size + instructions > _MOST_INSTRUCTIONS:
            yield from _automaton(part)
            part, size = [], 0
        part.append(member)
        size += instructions
    yield from _automaton(part)


def _automaton(members: Sequence[_Numbered]) -> Iterator[_Automaton]:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = min(len(members) << 20, _MOST_MEMORY)  # no more than they may take by themselves
    options.encoding = re2.Options.Encoding.LATIN1  # half the size of UTF-8's, and the same to ASCII
    tries = re2.Set.FullMatchSet(options)
    together, apart = [], []
    for member in members:
        try:
            tries.Add(member.pattern.pattern.encode("ascii"))
            together.append(member)
        except (re2.error, UnicodeEncodeError):  # characters beyond Latin-1
            apart.append(member)
    try:
        tries.Add(_ANY_PATH)
        tries.Compile()
    except re2.error:
        yield _Automaton(members, None)
        return
    yield _Automaton(together, tries)
    if apart:
        yield _Automaton(apart, None)
