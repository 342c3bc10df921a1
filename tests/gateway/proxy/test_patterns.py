"""Expressions that are tried together match what each matches by itself."""

from __future__ import annotations

from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy import patterns
from gateway.proxy.paths import BadPattern, compile_pattern
from gateway.proxy.patterns import Patterns, beginning

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
        alone = [number for number, pattern in enumerate(each) if pattern.fullmatch(path)]
        assert sorted(together.matching(path)) == alone
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
    together = Patterns([compile_pattern(f"/[a-z]+{number}") for number in range(500)])
    assert together.matching("/shop42") == [42]
    assert together.matching("/shop") == []


def test_a_path_made_to_keep_an_automaton_busy_is_tried_by_each_expression_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = Patterns([compile_pattern(f".*a{number}b.*") for number in range(200)])
    path = "/" + "".join(f"a{number}b" for number in range(0, 200, 2))
    assert sorted(together.matching(path[:450])) == [n for n in range(0, 200, 2) if f"a{n}b" in path[:450]]
    assert together.matching(path * 5) == list(range(0, 200, 2))
    monkeypatch.setattr(re2.Set, "Match", lambda *_: pytest.fail("an automaton is asked"))
    assert together.matching(path * 5) == list(range(0, 200, 2))


def test_an_automaton_is_never_so_large_that_others_wait_long_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    each = [compile_pattern(f"/[a-z]+{number}") for number in range(50)]
    monkeypatch.setattr(patterns, "_MOST_INSTRUCTIONS", sum(pattern.programsize for pattern in each) // 4)
    sizes: list[int] = []
    add, compile_ = re2.Set.Add, re2.Set.Compile
    added: list[object] = []
    monkeypatch.setattr(re2.Set, "Add", lambda *args: added.append(args) or add(*args))  # type: ignore[func-returns-value]
    monkeypatch.setattr(re2.Set, "Compile", lambda it: sizes.append(len(added)) or added.clear() or compile_(it))  # type: ignore[func-returns-value]
    together = Patterns(each)
    assert len(sizes) >= 4
    assert max(sizes) <= 14
    assert [together.matching(f"/a{number}") for number in range(50)] == [[number] for number in range(50)]
