"""What can be done to the live state, each as one Lua script that Redis runs as one step.

A function here only says what to run and how to read the answer; `registry.live.store` runs it. `now` (seconds) is for
tests: without it a script goes by Redis' own clock, the one clock that all lanes and workers share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

from registry.live.instances import Document, Fact, Key

T = TypeVar("T")

PREFIX = "anumate:{r}:"
CHANGES = PREFIX + "changes"
EPOCH = PREFIX + "epoch"
SEQ = PREFIX + "seq"
# Facts that outlive the instance or may come before it; all others need a live one.
_OUTLIVING = frozenset({"state"})

_encode = msgspec.json.encode
_document = msgspec.json.Decoder(Document)
_fact = msgspec.json.Decoder(Fact)


class Script(NamedTuple):
    text: str
    sha: str


class Index(NamedTuple):
    """A place in the history of changes: `<epoch>-<seq>` on the wire."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Index:
        """Raises ValueError on what no store ever gave."""
        epoch, dash, seq = text.rpartition("-")
        if not dash or not epoch.isalnum() or not (seq.isascii() and seq.isdigit()) or len(seq) > 18:
            raise ValueError(f"{text!r} is no index")
        return cls(epoch, int(seq))


@dataclass(frozen=True, slots=True)
class Op(Generic[T]):
    """One step: the script, what it gets, and how its answer is read."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[Any, ...]
    decode: Callable[[Any], T]


class Lease(msgspec.Struct, frozen=True):
    """What a registration came to. `renewed`: the document was known already."""

    outcome: Literal["created", "changed", "renewed"]
    registered_at: float
    expires_at: float
    index: Index


class Quota(msgspec.Struct, frozen=True):
    """How many live instances, and services that have one, a tenant may have. None: any number."""

    services: int | None = None
    instances: int | None = None


class QuotaExceeded(Exception):
    """A new instance would be more than its tenant may have: of `what` (services or instances), `most`."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"This tenant may have {most} {what}, and has them.")
        self.what, self.most = what, most


NO_QUOTA: Final = Quota()


class Renewal(msgspec.Struct, frozen=True):
    lease_ttl: int
    expires_at: float
    index: Index


class Members(msgspec.Struct, frozen=True):
    """Who is there, at an index; the documents are read in pages."""

    index: Index
    instances: list[Key]
    with_facts: list[Key]


class Known(NamedTuple):
    """What the store holds of one key. No document: no live instance."""

    document: Document | None
    registered_at: float
    facts: dict[str, Fact]


class Snapshot(msgspec.Struct, frozen=True):
    """Everything, at least as new as `index`; changes after it may be in here already."""

    index: Index
    known: dict[Key, Known]


class Change(NamedTuple):
    """One entry of the change stream."""

    seq: int
    op: Literal["put", "gone", "fact"]
    key: Key
    document: Document | None = None
    registered_at: float = 0.0
    kind: str = ""
    fact: Fact | None = None


def register(
    key: Key, document: Document, *, check: Fact | None = None, quota: Quota = NO_QUOTA, now: float | None = None
) -> Op[Lease]:
    """Give the instance a lease. `check` is the health check its registration asks for.

    Its answer raises QuotaExceeded; one that holds a lease is renewed, whatever the quota.
    """
    limits = ("" if most is None else most for most in (quota.services, quota.instances))
    args = (str(key), _encode(document), document.lease_ttl, _encode(check) if check else b"", *limits)
    return _op("register", _lease, *args, key=key, now=now)


def heartbeat(key: Key, *, now: float | None = None) -> Op[Renewal | None]:
    """Renew the lease; None when there is none, and the instance has to register again."""
    return _op("heartbeat", _renewal, str(key), key=key, now=now)


def deregister(key: Key, *, now: float | None = None) -> Op[Index | None]:
    """End the lease; None when there was none."""
    return _op("deregister", _index_or_none, str(key), key=key, now=now)


def put_fact(key: Key, kind: str, fact: Fact | None, *, now: float | None = None) -> Op[Index | None]:
    """Record what is known now, or take it away with None. Answers None when that changed nothing.

    A fact is the same when value, sentence and expiry are. Only `state` may be said of an instance that is not there.
    """
    needs_instance = int(bool(key.id) and kind not in _OUTLIVING)
    args = (str(key), kind, _encode(fact) if fact else b"", needs_instance)
    return _op("put_fact", _index_or_none, *args, key=key, now=now)


def sweep(limit: int = 500, *, now: float | None = None) -> Op[list[Key]]:
    """End lapsed leases, at most `limit`; answers whose. Of a crowd in one tenant some are held (`sweep.lua`)."""
    return _op("sweep", _keys, limit, now=now)


def release(tenant: str, service: str = "", *, now: float | None = None) -> Op[int]:
    """Have the next sweep end what is held of a tenant, or of one service; answers how many instances that are."""
    return _op("release", int, f"{tenant}/{service}/" if service else f"{tenant}/", now=now)


def stamp(*, now: float | None = None) -> Op[float]:
    """The lane's sign of life; answers how many seconds ago somebody swept."""
    return _op("stamp", _seconds, now=now)


def back_for(*, now: float | None = None) -> Op[float]:
    """How many seconds the store has been back after it, or the lane, was away."""
    return _op("back_for", _seconds, now=now)


def members() -> Op[Members]:
    return _op("members", _members)


def read(keys: Sequence[Key]) -> Op[list[Known]]:
    return _op("read", _known_list, *map(str, keys))


def leases(cursor: int = 0, count: int = 1000) -> Op[tuple[int, dict[str, float]]]:
    """A page of leases: the next cursor (0 at the end) and when each lapses, by the key's text."""
    return _op("leases", _lease_page, cursor, count)


def decode_change(entry: tuple[bytes, Mapping[bytes, bytes]]) -> Change:
    """One entry as XREAD and XRANGE give it."""
    entry_id, fields = entry
    op = fields[b"op"]
    seq, key = int(entry_id.partition(b"-")[0]), Key.parse(fields[b"key"].decode())
    if op == b"put":
        return Change(seq, "put", key, _document.decode(fields[b"doc"]), float(fields[b"at"]))
    if op == b"fact":
        fact = fields[b"fact"]
        return Change(seq, "fact", key, kind=fields[b"kind"].decode(), fact=_fact.decode(fact) if fact else None)
    return Change(seq, "gone", key)


def _op(name: str, decode: Callable[[Any], T], *args: Any, key: Key | None = None, now: float | None = None) -> Op[T]:
    keys = (EPOCH,) if key is None else (f"{PREFIX}i:{key}", f"{PREFIX}f:{key}")
    # Every call brings a new epoch along, for the case that the store has none: a script has no randomness of its own.
    epoch = os.urandom(8).hex()
    return Op(_script(name), keys, (epoch, "" if now is None else round(now * 1000), *args), decode)


@cache
def _script(name: str) -> Script:
    here = files("registry.live")
    text = "\n".join(here.joinpath(file).read_text("utf-8") for file in ("prelude.lua", f"{name}.lua"))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _index(epoch: bytes, seq: int) -> Index:
    return Index(epoch.decode(), seq)


def _index_or_none(raw: Any) -> Index | None:
    return _index(*raw) if raw else None


def _lease(raw: Any) -> Lease:
    if len(raw) == 2:
        raise QuotaExceeded(raw[0].decode(), raw[1])
    outcome, at, expires, epoch, seq = raw
    return Lease(outcome.decode(), float(at), expires / 1000, _index(epoch, seq))


def _renewal(raw: Any) -> Renewal | None:
    if not raw:
        return None
    ttl, expires, epoch, seq = raw
    return Renewal(ttl, expires / 1000, _index(epoch, seq))


def _keys(raw: Any) -> list[Key]:
    return [Key.parse(each.decode()) for each in raw]


def _seconds(raw: Any) -> float:
    return int(raw) / 1000


def _members(raw: Any) -> Members:
    epoch, seq, instances, with_facts = raw
    return Members(_index(epoch, seq), _keys(instances), _keys(with_facts))


def _known_list(raw: Any) -> list[Known]:
    return [_known(*each) for each in raw]


def _known(doc: bytes | None, at: bytes | None, facts: list[bytes]) -> Known:
    pairs = zip(facts[::2], facts[1::2], strict=True)
    return Known(
        _document.decode(doc) if doc else None,
        float(at) if at else 0.0,
        {kind.decode(): _fact.decode(fact) for kind, fact in pairs},
    )


def _lease_page(raw: Any) -> tuple[int, dict[str, float]]:
    cursor, flat = raw
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return int(cursor), {key.decode(): float(score) / 1000 for key, score in pairs}
