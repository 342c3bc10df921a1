"""Header fields that a route sets, adds or removes, in the forms that the two heads are written in."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.proxy.policies import HeaderEdits

Header = tuple[bytes, bytes]


class Edits:
    """`dropped` are the names whose fields go; `fields` come in their place or besides."""

    __slots__ = ("dropped", "fields")

    def __init__(self, edits: HeaderEdits) -> None:
        names = (*edits.remove, *(pair.name for pair in edits.set))
        self.dropped = frozenset(name.lower().encode() for name in names)
        self.fields = tuple((pair.name.lower().encode(), pair.value.encode()) for pair in (*edits.set, *edits.add))

    def kept(self, fields: Iterable[Header]) -> list[Header]:
        """Those that stay."""
        dropped = self.dropped
        return [field for field in fields if field[0] not in dropped]


def edits_of(edits: HeaderEdits) -> Edits | None:
    """None where there is nothing to do."""
    return Edits(edits) if edits != HeaderEdits() else None
