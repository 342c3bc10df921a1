"""What an import of the configuration changes, in words: like a diff, an entry at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MARKS = {"added": "+", "changed": "~", "removed": "-"}
_VERBS = {"added": "add", "changed": "change", "removed": "remove"}


def lines(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each entry, then its fields: `+` is new, `-` is gone, and what has another value is both."""
    for entry in changes:
        yield f"{_MARKS[entry['change']]} {entry['section']} {entry['name']}"
        for each in entry["fields"]:
            if each["change"] != "added":
                yield f"    - {each['field']}: {_value(each['before'])}"
            if each["change"] != "removed":
                yield f"    + {each['field']}: {_value(each['after'])}"


def intent(changes: Sequence[Mapping[str, Any]]) -> str:
    """What is about to be done: `add 2, change 1, remove 3 entries`."""
    return _told(changes, _VERBS) or "change nothing"


def outcome(changes: Sequence[Mapping[str, Any]]) -> str:
    """What was done: `Added 2, changed 1, removed 3 entries`."""
    return (_told(changes, {kind: kind for kind in _MARKS}) or "changed nothing").capitalize()


def _told(changes: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    """Each kind with its number; the noun goes by the last one."""
    count = {kind: sum(1 for entry in changes if entry["change"] == kind) for kind in words}
    told = {words[kind]: number for kind, number in count.items() if number}
    if not told:
        return ""
    counted = ", ".join(f"{word} {number}" for word, number in told.items())
    return f"{counted} {'entry' if [*told.values()][-1] == 1 else 'entries'}"


def _value(value: Any) -> str:
    """As JSON, so that no text of a file steers the terminal."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
