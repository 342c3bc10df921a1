"""Every live instance, in memory: follows the change stream, answers without I/O.

One loop writes; any thread may read. A reader gets whole values: the tuple of a service's instances stays the same
object until something about that service changes, so `is` tells whether there is anything to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

import msgspec

from anumate.lib import clock
from registry.live import kept
from registry.live.facts import Facts
from registry.live.instances import Document, Fact, Instance, Key
from registry.live.ops import Change, Index, Known, Snapshot
from registry.live.sharing import share_document, share_key

logger = logging.getLogger("anumate.catalog")

Pair = tuple[str, str]
"""Tenant and service."""
Listener = Callable[[set[Pair]], None]

NOWHERE = Index("none", 0)
EMPTIES_KEPT = 1_000
"""Services without instances that are remembered, of each tenant, for watchers that have not heard of it."""
_INSTANCE = ""
"""Stands where a fact's kind would: the instance itself."""
_UNTOLD = frozenset({"check", "held"})
"""Kinds of facts that no answer of discovery shows."""


class _Service:
    __slots__ = ("changed_at", "instances", "view")

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.view: tuple[Instance, ...] | None = ()
        self.changed_at = 0


class Catalog:
    def __init__(self, wall: clock.Clock = clock.wall) -> None:
        self._wall = wall
        self._index = NOWHERE
        self._services: dict[Pair, _Service] = {}
        self._facts = Facts()
        self._tenants: dict[str, set[str]] = {}
        self._tenant_changed_at: dict[str, int] = {}
        # Services whose last instance left, by tenant, the one that changed longest ago first.
        self._empties: dict[str, dict[str, None]] = {}
        # What changed before these numbers, for all and by tenant, is no longer known service by service.
        self._since = 0
        self._floors: dict[str, int] = {}
        # Written by this process and shown before the stream brought it: older news about the same thing is ignored.
        self._ahead: dict[tuple[Key, str], int] = {}
        # The numbers of those writes that watchers have yet to hear of.
        self._early: set[int] = set()
        # Not in a store that was wiped, and kept until then for whoever registers again.
        self._held: dict[tuple[Key, str], float] = {}
        self._listeners: list[Listener] = []
        self._watchers: list[Listener] = []
        self._unnumbered_listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._heard_at = wall()
        self.stale_since: float | None = self._heard_at

    # Reading, from any thread

    @property
    def index(self) -> str:
        return str(self._index)

    @property
    def position(self) -> Index:
        return self._index

    def instances(self, tenant: str, service: str) -> tuple[Instance, ...]:
        """Its live instances in the order of their ids, eligible or not."""
        known = self._services.get((tenant, service))
        if known is None:
            return ()
        view = known.view
        if view is None:
            with self._lock:
                view = known.view = tuple(known.instances[name] for name in sorted(known.instances))
        return view

    def services(self, tenant: str) -> tuple[str, ...]:
        """The names of services with a live instance, sorted."""
        with self._lock:
            return tuple(sorted(self._tenants.get(tenant, ())))

    def tenants(self) -> tuple[str, ...]:
        """The names of tenants with a live instance, sorted."""
        with self._lock:
            return tuple(sorted(self._tenants))

    def get(self, key: Key) -> Instance | None:
        known = self._services.get((key.tenant, key.service))
        return known.instances.get(key.id) if known else None

    def service_facts(self, tenant: str, service: str) -> Mapping[str, Fact]:
        """What is known of the service as a whole; its operator's word is `state`."""
        return self._facts.of(Key(tenant, service))

    def word(self, key: Key) -> Fact | None:
        """What operators said last of this instance, service or zone; it may have ended."""
        return self._facts.of(key).get("state")

    def changed_at(self, tenant: str, service: str = "") -> int:
        """The number of the last change of this service, or of anything of this tenant."""
        if not service:
            return self._tenant_changed_at.get(tenant, self._since)
        known = self._services.get((tenant, service))
        return known.changed_at if known else self.floor(tenant)

    def floor(self, tenant: str) -> int:
        """Whoever knows this tenant as of an older number than this has to be told everything."""
        return self._floors.get(tenant, self._since)

    def changed_since(self, tenant: str, seq: int) -> tuple[str, ...]:
        """The names of services that changed after number `seq`, down to the floor; those that are gone included."""
        with self._lock:
            changed = [pair[1] for pair, s in self._services.items() if pair[0] == tenant and s.changed_at > seq]
        return tuple(sorted(changed))

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Have `callback` called after each batch with the pairs that changed; answers how to stop that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def watch(self, callback: Listener) -> Callable[[], None]:
        """Like `listen`, but only of what discovery shows: a check that says the same in other words wakes nobody."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def listen_unnumbered(self, callback: Listener) -> None:
        """Have `callback` called for changes that the stream did not bring: the index is the same after them."""
        self._unnumbered_listeners.append(callback)

    # Writing, from the one loop

    def apply(self, *changes: Change) -> None:
        """Take in changes of the stream, oldest first, then tell the listeners once."""
        touched, told = set[Pair](), set[Pair]()
        with self._lock:
            for change in changes:
                told_of = self._take(change) or change.seq in self._early
                pairs = self._pairs(change.key)
                touched |= pairs
                if told_of:
                    told |= pairs
                    for tenant, service in pairs:
                        self._mark(Key(tenant, service), change.seq)
            if changes:
                self._index = Index(self._index.epoch, changes[-1].seq)
                self._forget_what_was_ahead()
        self._tell(touched, self._listeners)
        self._tell(told, self._watchers)

    def absorb(self, change: Change, epoch: str) -> None:
        """Show this process's own write before the stream brings it. Listeners hear of it from the stream."""
        with self._lock:
            if epoch != self._index.epoch or change.seq <= self._index.seq:
                return
            if self._take(change):
                self._early.add(change.seq)
            self._ahead[change.key, change.kind or _INSTANCE] = change.seq

    def replace(self, snapshot: Snapshot) -> None:
        """Take over what the store holds.

        When the store is another one than before (it was wiped), what it does not hold stays for one lease time, while
        instances register again.
        """
        index = snapshot.index
        with self._lock:
            wiped = self._index.epoch not in {index.epoch, NOWHERE.epoch}
            if wiped or index.seq < self._index.seq or self._index == NOWHERE:
                self._count_anew(index.seq)
            touched = self._merge(snapshot.known, wiped)
            for tenant, service_name in touched:
                self._mark(Key(tenant, service_name), index.seq)
            self._index = index
            self._forget_what_was_ahead()
            self.heard()
            self.stale_since = None
        self._tell(touched)

    def set_states(self, states: Mapping[Key, Fact]) -> None:
        """What the database says operators want. The later word wins over the live fact; a wiped store undoes none."""
        with self._lock:
            touched = {pair for key in self._facts.decide(states) for pair in self._pairs(key)}
            changed = {pair for pair in touched if self._recompose(*pair)}
            for tenant, service in touched:
                self._mark(Key(tenant, service), self._index.seq)
        self._tell(changed, self._unnumbered_listeners)
        self._tell(touched)

    def lost(self) -> None:
        """The store is away: what is known stays, and is known to be as old as the last word of the store."""
        if self.stale_since is None:
            self.stale_since = self._heard_at

    def heard(self) -> None:
        """The store has said something, be it that nothing is new."""
        self._heard_at = self._wall()

    def expire_held(self) -> None:
        """End the grace of what a wiped store did not get back."""
        if not self._held:
            return
        now, touched = self._wall(), set[Pair]()
        with self._lock:
            for (key, kind), until in list(self._held.items()):
                if until <= now:
                    self._take(Change(0, "fact", key, kind=kind) if kind else Change(0, "gone", key))
                    touched |= self._pairs(key)
                    for tenant, service in self._pairs(key):
                        self._mark(Key(tenant, service), self._index.seq)
        self._tell(touched, self._unnumbered_listeners)
        self._tell(touched)

    def dump(self) -> bytes:
        """Everything, for a restart while the store is away."""
        with self._lock:
            instances, facts = list(self._everyone()), list(self._facts.items())
        saved_at = self._wall() if self.stale_since is None else self.stale_since
        return kept.encode(saved_at, self._index, instances, facts)

    def load(self, data: bytes) -> None:
        """Take over what `dump` gave. Raises msgspec.DecodeError on anything else."""
        snapshot, saved_at = kept.decode(data)
        self.replace(snapshot)
        self.stale_since = saved_at

    # Inside, with the lock held

    def _take(self, change: Change) -> bool:
        """Whether discovery shows it. What came too late to be taken may have been shown, so that counts."""
        key, what = change.key, change.kind or _INSTANCE
        if change.seq and self._ahead.get((key, what), 0) > change.seq:
            if change.op == "gone":
                self._facts.forget(key)
                self._recompose(key.tenant, key.service, only=key.id)
            return True
        self._held.pop((key, what), None)
        if change.op == "put":
            assert change.document is not None  # noqa: S101 (a put has one)
            self._put(key, change.document, change.registered_at)
        elif change.op == "gone":
            self._remove(key)
        else:
            return self._set_fact(key, change.kind, change.fact)
        return True

    def _put(self, key: Key, document: Document, registered_at: float) -> None:
        pair = (key.tenant, key.service)
        service = self._services.setdefault(pair, _Service())
        if sibling := service.instances.get(key.id) or next(iter(service.instances.values()), None):
            document = share_document(document, sibling.document)
        key = share_key(key)
        service.instances[key.id] = Instance(key, document, registered_at, self._facts.about(key, document.zone))
        service.view = None
        self._tenants.setdefault(key.tenant, set()).add(key.service)

    def _remove(self, key: Key) -> None:
        self._facts.forget(key)
        service = self._services.get((key.tenant, key.service))
        if service is None or service.instances.pop(key.id, None) is None:
            return
        service.view = None
        if not service.instances:
            names = self._tenants[key.tenant]
            names.discard(key.service)
            if not names:
                del self._tenants[key.tenant]

    def _set_fact(self, key: Key, kind: str, fact: Fact | None) -> bool:
        known = self.get(key)
        before = self._facts.put(known.key if known else share_key(key), kind, fact)
        if key.service:
            self._recompose(key.tenant, key.service, only=key.id)
        else:
            for pair in self._pairs(key):
                self._recompose(*pair)
        return kind not in _UNTOLD and _shown(before) != _shown(fact)

    def _recompose(self, tenant: str, service_name: str, only: str = "") -> bool:
        """Build again the instances whose facts changed; without `only`, all of the service. Whether any did."""
        service, changed = self._services.get((tenant, service_name)), False
        if service is None:
            return changed
        for name in [only] if only else list(service.instances):
            instance = service.instances.get(name)
            if instance and (facts := self._facts.about(instance.key, instance.document.zone)) != instance.facts:
                service.instances[name] = msgspec.structs.replace(instance, facts=facts)
                service.view, changed = None, True
        return changed

    def _pairs(self, key: Key) -> set[Pair]:
        """Whom a change of this key is about: one service, or all with an instance in the zone."""
        if key.service:
            return {(key.tenant, key.service)}
        return {
            (key.tenant, name)
            for name in self._tenants.get(key.tenant, ())
            if any(each.document.zone == key.id for each in self._services[key.tenant, name].instances.values())
        }

    def _everyone(self) -> Iterator[Instance]:
        return (instance for service in self._services.values() for instance in service.instances.values())

    def _merge(self, known: Mapping[Key, Known], wiped: bool) -> set[Pair]:
        """Make what is here equal to what is `known`; answers the pairs that changed."""
        touched: set[Pair] = set()
        here = {instance.key: instance for instance in self._everyone()}
        for key in here.keys() | self._facts.keys() | known.keys():
            if self._merge_one(key, here.get(key), known.get(key) or Known(None, 0.0, {}), wiped):
                touched |= self._pairs(key)
        return touched

    def _merge_one(self, key: Key, here: Instance | None, known: Known, wiped: bool) -> bool:
        changed = False
        for change in self._differences(key, here, known):
            absent = change.op == "gone" or (change.op == "fact" and change.fact is None)
            if absent and wiped:
                lease = here.document.lease_ttl if here else Document().lease_ttl
                self._held.setdefault((key, change.kind or _INSTANCE), self._wall() + lease)
            elif absent and (key, change.kind or _INSTANCE) in self._held:
                continue
            elif (key, change.kind or _INSTANCE) not in self._ahead:
                self._take(change)
                changed = True
        return changed

    def _differences(self, key: Key, here: Instance | None, known: Known) -> Iterator[Change]:
        if known.document is not None:
            if here is None or (here.document, here.registered_at) != (known.document, known.registered_at):
                yield Change(0, "put", key, known.document, known.registered_at)
        elif here is not None:
            yield Change(0, "gone", key)
        facts = self._facts.said(key)
        for kind in list(facts.keys() | known.facts.keys()):
            if facts.get(kind) != known.facts.get(kind):
                yield Change(0, "fact", key, kind=kind, fact=known.facts.get(kind))

    def _count_anew(self, seq: int) -> None:
        self._since = seq
        self._floors.clear()
        self._ahead.clear()
        self._early.clear()
        self._tenant_changed_at.clear()
        for service in self._services.values():
            service.changed_at = 0

    def _mark(self, key: Key, seq: int) -> None:
        self._tenant_changed_at[key.tenant] = seq
        service = self._services.get((key.tenant, key.service))
        if service is None:
            return
        service.changed_at = seq
        empties = self._empties.setdefault(key.tenant, {})
        empties.pop(key.service, None)
        if not service.instances:
            empties[key.service] = None
        if len(empties) > EMPTIES_KEPT:
            self._forget_oldest(key.tenant, empties)
        elif not empties:
            del self._empties[key.tenant]

    def _forget_oldest(self, tenant: str, empties: dict[str, None]) -> None:
        oldest = next(iter(empties))
        del empties[oldest]
        service = self._services[tenant, oldest]
        if not service.instances:  # it may have come back ahead of the stream
            del self._services[tenant, oldest]
            self._floors[tenant] = max(self.floor(tenant), service.changed_at)

    def _forget_what_was_ahead(self) -> None:
        if self._early:
            self._early = {seq for seq in self._early if seq > self._index.seq}
        if self._ahead:
            self._ahead = {what: seq for what, seq in self._ahead.items() if seq > self._index.seq}

    def _tell(self, touched: set[Pair], listeners: list[Listener] | None = None) -> None:
        """Without `listeners`, all that hear of numbered changes."""
        if not touched:
            return
        for listener in [*self._listeners, *self._watchers] if listeners is None else list(listeners):
            try:
                listener(touched)
            except Exception:
                logger.exception("a listener of the catalogue failed")


def _shown(fact: Fact | None) -> tuple[str, float, int | None] | None:
    """What an answer can show of a fact; its words are for people."""
    return (fact.value, fact.expires_at, fact.weight) if fact else None
