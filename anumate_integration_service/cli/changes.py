"""What an import of the configuration changes, in words: like a diff, an entry at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MARKS = {"added": "+", "changed": "~", "removed": "-"}


def lines(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each entry, then its fields: `+` is new, `-` is gone, and what has another value is both."""
    for entry in changes:
        yield f"{_MARKS[entry['change']]} {entry['section']} {entry['name']}"
        for each in entry["fields"]:
            if each["change"] != "added":
                yield f"    - {each['field']}: {_value(each['before'])}"
            if each["change"] != "removed":
                yield f"    + {each['field']}: {_value(each['after'])}"


def summary(changes: Sequence[Mapping[str, Any]]) -> str:
    if not changes:
        return "no changes"
    count = {kind: sum(1 for entry in changes if entry["change"] == kind) for kind in _MARKS}
    return ", ".join(f"{number} {kind}" for kind, number in count.items() if number)


def _value(value: Any) -> str:
    """As JSON, so that no text of a file steers the terminal."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
