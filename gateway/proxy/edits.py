"""Header fields that a route sets, adds or removes, in the forms that the two heads are written in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gateway.proxy.fields import HOP_BY_HOP
from gateway.proxy.policies import HeaderEdits

Header = tuple[bytes, bytes]

_FRAMING: Final = HOP_BY_HOP | {b"content-length"}
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_LINE_END: Final = re.compile(r"[\r\n\0]|[^\x00-\xff]").search


class Edits:
    """`dropped` are the names whose fields go; `fields` come in their place or besides."""

    __slots__ = ("dropped", "fields")

    def __init__(self, edits: HeaderEdits) -> None:
        check(edits)
        names = (*edits.remove, *(pair.name for pair in edits.set))
        self.dropped = frozenset(name.lower().encode() for name in names)
        self.fields = tuple((pair.name.lower().encode(), pair.value.encode()) for pair in (*edits.set, *edits.add))

    def kept(self, fields: Iterable[Header]) -> list[Header]:
        """Those that stay."""
        dropped = self.dropped
        return [field for field in fields if field[0] not in dropped]


def check(edits: HeaderEdits) -> None:
    """Raises ValueError where a head with them could be read as another one; they should have been refused at save."""
    for pair in (*edits.set, *edits.add):
        name = pair.name.lower().encode()
        if not _NAME(pair.name) or _LINE_END(pair.value) or name in _FRAMING:
            raise ValueError(f"The header {pair.name!r} cannot be set to that value.")
    if any(name.lower().encode() in _FRAMING for name in edits.remove):
        raise ValueError("What says where a message ends cannot be removed.")


def edits_of(edits: HeaderEdits) -> Edits | None:
    """None where there is nothing to do."""
    return Edits(edits) if edits != HeaderEdits() else None
