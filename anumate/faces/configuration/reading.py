"""YAML as JSON values, with the line of each of them.

It goes by the events of PyYAML's safe parser instead of its constructor, because a file that people keep under version
control should mean what it says: by YAML 1.2's core schema (`no` is a text), without tags, and every key once. Aliases
are refused, so a small file stays small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_BYTES: Final = 5 * 1024 * 1024
MAX_DEPTH: Final = 20
_LONGEST_NUMBER: Final = 40

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast, but not everywhere

NULL: Final = re.compile(r"(?:~|null|Null|NULL|)\Z")
TRUTH: Final = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
WHOLE: Final = re.compile(r"[-+]?[0-9]+\Z")
NUMBER: Final = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)


class Unreadable(ValueError):
    """The document cannot be read; `line` counts from 1."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(f"line {line}: {sentence}")
        self.line = line
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Document:
    """What was read. `lines` has the line of each value by its JSON pointer; values made from JSON have none."""

    value: Any
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, pointer: str) -> int | None:
        """The line of the value, or of the nearest one around it."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer)


def read(data: bytes) -> Document:
    """Read one YAML document.

    Raises:
        Unreadable: it is too large, not UTF-8, no YAML, or uses what is not taken here.
    """
    if len(data) > MAX_BYTES:
        raise Unreadable(1, f"The document has more than {MAX_BYTES // 1024 // 1024} MB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(data.count(b"\n", 0, error.start) + 1, "The document is not UTF-8.") from None
    try:
        return _Builder(yaml.parse(text, Loader=_Loader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise Unreadable(mark.line + 1 if mark else 1, f"This is no YAML: {said}.") from None
    except yaml.YAMLError as error:
        raise Unreadable(1, f"This is no YAML: {' '.join(str(error).split())}.") from None


def step(name: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return "/" + str(name).replace("~", "~0").replace("/", "~1")


class _Builder:
    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.lines: dict[str, int] = {}

    def document(self) -> Document:
        value: Any = None
        seen = False
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    raise Unreadable(_line(event), "There is more than one document.")
                seen = True
                value = self.value(next(self.events), "", 1)
        return Document(value, self.lines)

    def value(self, event: yaml.Event, pointer: str, depth: int) -> Any:
        # A mapping's own line is that of its key, which stands there already.
        self.lines.setdefault(pointer, _line(event))
        if depth > MAX_DEPTH:
            raise Unreadable(_line(event), "This is nested too deeply.")
        if isinstance(event, yaml.AliasEvent):
            raise Unreadable(_line(event), "Aliases are not taken; write the value out.")
        if (tag := getattr(event, "tag", None)) and tag != "!":
            raise Unreadable(_line(event), f"Tags are not taken, and this is tagged {tag}.")
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(pointer, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(pointer, depth)
        return _scalar(event)

    def mapping(self, pointer: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name = self.value(event, pointer + "/?", MAX_DEPTH) if isinstance(event, yaml.ScalarEvent) else None
            if not isinstance(name, str):
                raise Unreadable(_line(event), "A field's name is a text.")
            if name in found:
                raise Unreadable(_line(event), f"{name} stands here twice.")
            inner = pointer + step(name)
            self.lines[inner] = _line(event)
            found[name] = self.value(next(self.events), inner, depth + 1)
        return found

    def sequence(self, pointer: str, depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.value(event, f"{pointer}/{len(found)}", depth + 1))
        return found


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0] or event.style:  # quoted, or a block
        return text
    if NULL.match(text):
        return None
    if TRUTH.match(text):
        return text.lower() == "true"
    if WHOLE.match(text) or NUMBER.match(text):
        if len(text) > _LONGEST_NUMBER:
            raise Unreadable(_line(event), "This number has too many digits.")
        return int(text) if WHOLE.match(text) else float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
