"""What a configuration file may be made of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anumate.faces.configuration.reading import MAX_BYTES, Unreadable, read
from anumate.faces.configuration.writing import write

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(
        ["no", "on", "1e3", "0o7", "0x1f", "1:30", "2001-01-01", "~", "null", "<<", "=", "1_000", ".", ".e1"]
    )
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@given(documents)
def test_what_is_written_reads_the_same(value: Any) -> None:
    assert read(write(value).encode()).value == value


def test_words_of_yaml_1_1_are_texts() -> None:
    assert read(b"[no, on, yes, 2001-01-01, 1:30, <<]").value == ["no", "on", "yes", "2001-01-01", "1:30", "<<"]


def test_json_is_read_as_well() -> None:
    assert read(b'{"a": [1, 2.5, true, null, "x"]}').value == {"a": [1, 2.5, True, None, "x"]}


def test_each_value_has_its_line() -> None:
    document = read(b"routes:\n  - name: a\n    path: /a\n\n  - name: b\n    hosts:\n      - x\n")
    assert document.line("/routes") == 1
    assert document.line("/routes/0") == 2
    assert document.line("/routes/0/path") == 3
    assert document.line("/routes/1/hosts/0") == 7
    assert document.line("/routes/1/nothing/at/all") == 5


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", 3, "a stands here twice"),
        (b"a: &x [1]\nb: *x\n", 2, "Aliases"),
        (b"a: !!python/object/apply:os.system [ls]\n", 1, "Tags"),
        (b"a: 1\n1: b\n", 2, "name is a text"),
        (b"? [a]\n: b\n", 1, "name is a text"),
        (b"a: 1\n---\nb: 2\n", 2, "more than one"),
        (b"a: [1\nb: 2\n", 2, "no YAML"),
        (b"a: 1\n\tb: 2\n", 2, "no YAML"),
        (b"a: 1\nb: \xff\n", 2, "UTF-8"),
        (b"a: \x00\n", 1, "no YAML"),
        (b"[" * 10_000, 1, "nested too deeply"),
        (b"a: " + b"9" * 5000, 1, "too many digits"),
        (b"x" * (MAX_BYTES + 1), 1, "5 MB"),
    ],
)
def test_what_is_not_taken_is_refused_with_its_line(text: bytes, line: int, words: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(text)
    assert refused.value.line == line
    assert words in refused.value.sentence


def test_nothing_is_null() -> None:
    assert read(b"").value is None
    assert read(b"# only a comment\n").value is None
