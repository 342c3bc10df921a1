"""What an import changes, as values; `anumate_integration_service.cli.changes` shows it to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from anumate.faces.configuration.exporting import Entries
from anumate.faces.configuration.sections import SECTIONS, Entry, Section, is_same

Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True)
class FieldChange:
    """A field that an entry gets, has with another value, or leaves to its default from now on."""

    field: str
    change: Kind
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class EntryChange:
    section: str
    name: str
    change: Kind
    fields: list[FieldChange]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def difference(before: Entries, after: Entries) -> list[EntryChange]:
    """How the configuration `before` becomes the one `after`, section by section."""
    return [change for section in SECTIONS for change in _of_section(section, before, after)]


def _of_section(section: Section, before: Entries, after: Entries) -> Iterator[EntryChange]:
    old, new = before[section.name], after[section.name]
    for identity in sorted(old.keys() | new.keys()):
        fields = list(_fields(old.get(identity, {}), new.get(identity, {})))
        if identity not in old or identity not in new or fields:
            kind: Kind = "changed" if identity in old and identity in new else "added" if identity in new else "removed"
            title = section.title(new.get(identity) or old[identity])
            yield EntryChange(section.name, title, kind, fields)


def _fields(old: Entry, new: Entry) -> Iterator[FieldChange]:
    for name in old | new:
        if name not in old:
            yield FieldChange(name, "added", after=new[name])
        elif name not in new:
            yield FieldChange(name, "removed", before=old[name])
        elif not is_same(old[name], new[name]):
            yield FieldChange(name, "changed", old[name], new[name])
