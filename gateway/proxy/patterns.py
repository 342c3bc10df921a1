"""Regular expressions that match a path, found without trying one after the other.

Two steps. What all paths begin with that an expression matches (RE2 knows it; it may be nothing) is kept sorted: one
bisection finds the beginnings of a path. Expressions with the same one are tried at once, by automata that take time
linear in the path (RE2::Set).

What it costs at worst is bounded before anything is tried: of the event loop, others wait for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import re2

_AT_A_TIME: Final = 100
MOST_INSTRUCTIONS: Final = 2_000
"""Of RE2 (`programsize`), in all expressions that one path may have to be tried against on one host."""
MOST_WORK: Final = 1_000_000
"""Instructions times bytes that one request is tried with. The worst of cases takes RE2 10 ns for each, whatever it is:
every byte may take an automaton to a new state, and making one costs as much as it has instructions."""
_FEW: Final = 8
"""Expressions that begin alike and are tried one by one: kept busy, they cost less than a small automaton."""
_LONGEST_BEGINNING: Final = 128
_MOST_MEMORY: Final = 8 << 20
_ANY_PATH: Final = b"(?s).*"
_THROWN_AWAY: Final = re2.Options()
_THROWN_AWAY.log_errors = False


class TooMuchWork(Exception):
    """A path is so long, and the expressions that it fits the beginnings of are so many, that others would wait."""


class Patterns:
    """Compiled expressions (`compile_pattern`), called by their number; the first ones matter most.

    `left_out` are those for which there is no room beside earlier ones.
    """

    __slots__ = ("_beginnings", "_groups", "_instructions", "_last", "_shorter", "left_out")

    def __init__(self, patterns: Sequence[Any]) -> None:
        begins = [beginning(pattern) for pattern in patterns]
        self._beginnings = sorted(set(begins))
        self._shorter = _shorter(self._beginnings)
        places = {each: place for place, each in enumerate(self._beginnings)}
        self.left_out: list[int] = []
        groups: list[list[_Numbered]] = [[] for _ in self._beginnings]
        room = _Room(self._shorter)
        for number, pattern in enumerate(patterns):
            place = places[begins[number]]
            if room.take(place, pattern.programsize):
                groups[place].append(_Numbered(number, pattern))
            else:
                self.left_out.append(number)
        self._instructions = [room.above(place) for place in range(len(groups))]
        self._groups = [list(_automata(group)) for group in groups]
        self._last: tuple[str, list[int]] = "", []

    def matching(self, path: str, spent: int = 0) -> tuple[list[int], int]:
        """The numbers of those that match the whole path, which is ASCII; and how many instructions it is tried with,
        those included that were `spent` elsewhere.

        Raises:
            TooMuchWork: it would be over `MOST_WORK`. None has been tried.
        """
        # All that the path begins with are the one that is sorted before it, or what that one begins with.
        at = bisect_right(self._beginnings, path) - 1
        while at >= 0 and not path.startswith(self._beginnings[at]):
            at = self._shorter[at]
        if at < 0:
            return [], spent
        spent += self._instructions[at]
        if spent * len(path) > MOST_WORK:
            raise TooMuchWork
        if self._last[0] != path:  # else another method is asked about
            self._last = path, list(self._tried(path.encode(), at))
        return self._last[1], spent

    def _tried(self, path: bytes, at: int) -> Iterator[int]:
        while at >= 0:
            for automaton in self._groups[at]:
                yield from automaton.matching(path)
            at = self._shorter[at]

    def dismantle(self) -> None:
        """Let go of all automata, some at a time."""
        self._beginnings.clear()
        while self._groups:
            del self._groups[-_AT_A_TIME:]


class _Room:
    """What is left of `MOST_INSTRUCTIONS`, for beginnings that are told by their place in the order."""

    def __init__(self, shorter: Sequence[int]) -> None:
        self._shorter = shorter
        self._own = [0] * len(shorter)
        self._below = [0] * len(shorter)
        """The most that any path takes of a beginning and longer ones."""

    def above(self, place: int) -> int:
        """What a path takes of a beginning and shorter ones."""
        found = 0
        while place >= 0:
            found += self._own[place]
            place = self._shorter[place]
        return found

    def take(self, place: int, instructions: int) -> bool:
        if self.above(self._shorter[place]) + self._below[place] + instructions > MOST_INSTRUCTIONS:
            return False
        self._own[place] += instructions
        self._below[place] += instructions
        while (upper := self._shorter[place]) >= 0:
            self._below[upper] = max(self._below[upper], self._own[upper] + self._below[place])
            place = upper
        return True


def has_room(pattern: Any, others: Iterable[Any]) -> bool:
    """Whether all can be tried on one host, if these others can."""
    before = list({each.pattern: each for each in others if each.pattern != pattern.pattern}.values())
    return len(before) not in Patterns([*before, pattern]).left_out


def beginning(pattern: Any) -> str:
    """What everything begins with that the pattern matches as a whole."""
    least, most = match_range(pattern)
    # What is sorted between two texts begins with all that both begin with.
    same = next((at for at, (one, other) in enumerate(zip(least, most, strict=False)) if one != other), len(least))
    return str(least[:same].decode("latin-1"))


def match_range(pattern: Any) -> tuple[bytes, bytes]:
    """Two texts that everything is sorted between that the pattern matches; both empty where RE2 knows none."""
    # A copy is asked, and thrown away: answering leaves 5 KB with it.
    try:
        least, most = re2.compile(pattern.pattern, options=_THROWN_AWAY).possiblematchrange(_LONGEST_BEGINNING)
    except re2.error:
        return b"", b""
    return least, most


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
        if self.tries is not None and (found := self.tries.Match(path)):
            last = len(self.members)  # is _ANY_PATH
            return [self.members[at].number for at in found if at < last] if len(found) > 1 else ()
        # They are few; or the automaton ran out of memory, and not even _ANY_PATH matched.
        return [number for number, pattern in self.members if pattern.fullmatch(path)]


def _automata(members: Sequence[_Numbered]) -> Iterator[_Automaton]:
    if len(members) <= _FEW:
        yield _Automaton(members, None)
        return
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
