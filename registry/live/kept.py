"""The catalogue on disk, for a restart while the store is away."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from registry.live.instances import Document, Fact, Instance, Key
from registry.live.ops import Index, Known, Snapshot


class _Kept(msgspec.Struct, frozen=True):
    saved_at: float
    epoch: str
    seq: int
    instances: list[tuple[Key, Document, float]]
    facts: list[tuple[Key, dict[str, Fact]]]


def encode(
    saved_at: float, index: Index, instances: Iterable[Instance], facts: Iterable[tuple[Key, dict[str, Fact]]]
) -> bytes:
    """Everything, as known at `saved_at` (seconds since the epoch)."""
    rows = [(each.key, each.document, each.registered_at) for each in instances]
    return msgspec.json.encode(_Kept(saved_at, index.epoch, index.seq, rows, list(facts)))


def decode(data: bytes) -> tuple[Snapshot, float]:
    """What `encode` gave: everything, and when it was known.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    kept = msgspec.json.decode(data, type=_Kept)
    known = {key: Known(document, at, {}) for key, document, at in kept.instances}
    for key, facts in kept.facts:
        known[key] = known.get(key, Known(None, 0.0, {}))._replace(facts=facts)
    return Snapshot(Index(kept.epoch, kept.seq), known), kept.saved_at
