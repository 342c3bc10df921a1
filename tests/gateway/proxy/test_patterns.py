"""Expressions that are tried together match what each matches by itself."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy import patterns
from gateway.proxy.paths import BadPattern, compile_pattern
from gateway.proxy.patterns import MOST_INSTRUCTIONS, MOST_WORK, Patterns, TooMuchWork, beginning

LITERALS = st.sampled_from(["/", "a", "b", "/a", "/b/", "ab", r"\.", "%41", "é", "-", r"\Qa|b\E", r"\x61"])
CLASSES = st.sampled_from(
    [".", "[ab]", "[^/]", "[^a]", r"\w", r"\d", r"\pL", "[[:alpha:]]", "^", "$", r"\b", "(?i)", r"\x{e9}", r"\x{100}"]
)
EXPRESSIONS = st.recursive(
    st.one_of(LITERALS, CLASSES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"(?:{'|'.join(some)})"),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{0}"])).map(
            lambda it: f"({it[0]}){it[1]}"
        ),
        st.tuples(inner, st.sampled_from(["*", "+", "?"])).map("".join),
        inner.map(lambda it: f"(?i:{it})"),
    ),
    max_leaves=8,
)
PATHS = st.lists(st.sampled_from(["/", "a", "b", "A", "B", "c", "7", ".", "-", "|", "%C3%A9", "ab"]), max_size=6).map(
    lambda parts: "/" + "".join(parts)
)


def compiled(texts: list[str]) -> list[Any]:
    found = []
    for text in texts:
        try:
            found.append(compile_pattern(text))
        except BadPattern:
            continue
    return found


@settings(max_examples=500, deadline=None)
@given(
    st.lists(EXPRESSIONS.flatmap(lambda it: st.sampled_from([it, "/" + it])), max_size=10), st.lists(PATHS, max_size=6)
)
def test_they_match_what_each_matches_by_itself(texts: list[str], paths: list[str]) -> None:
    each = compiled(texts)
    together = Patterns(each)
    for path in paths:
        alone = [
            number for number, pattern in enumerate(each) if number not in together.left_out and pattern.fullmatch(path)
        ]
        assert sorted(together.matching(path)[0]) == alone
        assert all(path.startswith(beginning(each[number])) for number in alone)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        *(
            ("/orders/[0-9]+", "/orders/"),
            ("/orders/?", "/orders"),
            ("/a(b|c)", "/a"),
            ("/a|/b", "/"),
            ("^/a/.*", "/a/"),
        ),
        *(("(?i)/a", "/"), (r"/a\.b", "/a.b"), ("/abc*", "/ab"), ("/abc+", "/abc"), (".*", ""), ("(/a)?/b", "/")),
        *(("/%41b", "/Ab"), ("/" + "a" * 500, "/" + "a" * 126)),
    ],
)
def test_it_knows_what_all_matches_begin_with(text: str, begins: str) -> None:
    assert beginning(compile_pattern(text)) == begins


@pytest.mark.parametrize("memory", [0, 1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 20])
def test_without_memory_for_an_automaton_each_is_tried_by_itself(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_MOST_MEMORY", memory)
    together = Patterns([compile_pattern(f"/[a-z]+{number}") for number in range(80)])
    assert together.matching("/shop42")[0] == [42]
    assert together.matching("/shop")[0] == []


class Counted:
    """An expression that writes down with how many bytes it is tried."""

    def __init__(self, text: str, tried: list[int]) -> None:
        self._pattern = compile_pattern(text)
        self.pattern = self._pattern.pattern
        self.programsize = self._pattern.programsize
        self._tried = tried

    def fullmatch(self, path: bytes) -> Any:
        self._tried.append(self.programsize * len(path))
        return self._pattern.fullmatch(path)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instructions times bytes of each expression that a path is tried against. No automaton tries several at once."""
    monkeypatch.setattr(patterns, "_FEW", 1_000_000)
    return []


@pytest.mark.parametrize(
    "text",
    [
        *("/t/.*/r{}/.*", "/t/.*a[ab/]{{20}}b{}", "/{}/.*", ".*{}"),
        *("(?i)/t/{}.*", "/t(.*)/([ab]{{100}}){}", "/[^/]+/r{}"),
    ],
)
@pytest.mark.parametrize("length", [20, 500, 501, 2000, 8192])
def test_no_path_is_tried_with_more_work_than_others_can_wait_for(text: str, length: int, tried: list[int]) -> None:
    together = Patterns([Counted(text.format(number), tried) for number in range(300)])
    for path in ("/t/" + "ab/" * length, "/7/" + "a" * length, "/" * length):
        tried.clear()
        with suppress(TooMuchWork):
            together.matching(path[:length])
        assert sum(tried) <= MOST_WORK
        assert sum(tried) <= MOST_INSTRUCTIONS * length


@pytest.mark.parametrize("step", [1, 3])
def test_the_bound_is_that_of_all_beginnings_of_a_path_together(step: int, tried: list[int]) -> None:
    """From the longest to the shortest, from the shortest to the longest, and mixed."""
    texts = ["/" + "t" * (number * step) + ".*[ab]{9}c" for number in range(120 // step)] * 2
    texts = [f"{text}{number}" for number, text in enumerate(texts)]
    for order in (texts, texts[::-1], random.Random(5).sample(texts, len(texts))):
        tried.clear()
        together = Patterns([Counted(text, tried) for text in order])
        together.matching("/" + "t" * 130)
        work = sum(tried) // 131
        assert MOST_INSTRUCTIONS - 100 < work <= MOST_INSTRUCTIONS
        assert together.left_out


def test_those_that_come_last_are_left_out_and_a_smaller_one_still_finds_room(tried: list[int]) -> None:
    large = [Counted(f"/t.*[ab]{{400}}c{number}", tried) for number in range(4)]
    small = Counted("/t.*x", tried)
    together = Patterns([*large, small])
    fits = MOST_INSTRUCTIONS // large[0].programsize
    assert together.left_out == list(range(fits, 4))
    assert together.matching("/tx")[0] == [4]


def test_a_path_that_is_too_long_is_tried_with_nothing(tried: list[int]) -> None:
    together = Patterns([Counted(f"/t.*a{number}", tried) for number in range(50)])
    with pytest.raises(TooMuchWork):
        together.matching("/t" + "a" * 8000)
    assert not tried
    assert together.matching("/u" + "a" * 8000) == ([], 0)


def test_what_other_hosts_expressions_cost_counts(tried: list[int]) -> None:
    one = Counted("/t.*a", tried)
    path = "/t" + "a" * 1000
    spent = MOST_WORK // len(path) - one.programsize
    assert Patterns([one]).matching(path, spent) == ([0], spent + one.programsize)
    with pytest.raises(TooMuchWork):
        Patterns([one]).matching(path, spent + 1)


def test_ten_thousand_expressions_that_begin_with_different_texts_all_have_room(tried: list[int]) -> None:
    together = Patterns([Counted(f"/r{number}/.*[ab]{{9}}c", tried) for number in range(10_000)])
    assert not together.left_out
    assert together.matching("/r77/abababababac")[0] == [77]
    assert len(tried) == 1


def test_a_path_that_is_asked_about_again_is_not_tried_again(tried: list[int]) -> None:
    together = Patterns([Counted("/t.*", tried), Counted("/u.*", tried)])
    assert [together.matching(path)[0] for path in ("/t", "/t", "/u", "/t")] == [[0], [0], [1], [0]]
    assert len(tried) == 3
