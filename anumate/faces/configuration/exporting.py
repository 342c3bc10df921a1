"""The configuration of one tenant as a document, without secrets and without what goes without saying."""

from __future__ import annotations

from typing import Any, Final

from anumate.faces.configuration.sections import SECTIONS, Asker, Entry, Identity

VERSION: Final = 1
"""The version of the document's form."""

Entries = dict[str, dict[Identity, Entry]]


def entries_of(asker: Asker) -> Entries:
    """Every entry of the caller's tenant, by section and identity."""
    return {
        section.name: {identity: entry for identity, (entry, _) in section.entries(asker).items()}
        for section in SECTIONS
    }


def export(asker: Asker) -> dict[str, Any]:
    """The document. Empty sections stand in it too: with `prune`, they say that there is to be nothing."""
    return {"version": VERSION} | {name: list(entries.values()) for name, entries in entries_of(asker).items()}
