"""Which checks are to be made: the catalogue's live instances, crossed with the checks that people configured."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from health.plan import Check, checks_of, target_of
from health.probes import Target
from health.schedule import Member
from registry.live.catalog import Catalog
from registry.live.instances import Instance, Key

ServiceName = tuple[str, str]
"""Tenant and service."""
Configured = Mapping[ServiceName, Sequence[Check]]


class Planned(NamedTuple):
    check: Check
    target: Target


@dataclass
class Replanned:
    """What became of the plan. `changed` is asked differently, `unchecked` has a verdict but no check any more."""

    added: set[Member] = field(default_factory=set)
    changed: set[Member] = field(default_factory=set)
    dropped: set[Member] = field(default_factory=set)
    unchecked: set[Key] = field(default_factory=set)


class Roster:
    """Follows catalogue and configuration, and says what that changes in the schedule. Does no input or output.

    For any number of threads: a turn plans anew while the answers of an earlier one are still being judged.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.configured: Configured = {}
        self.reconcile_at = 0.0
        # The epoch in which a verdict was put into the store: our catalogue outlives a wiped one and cannot tell.
        self.told: dict[Key, str] = {}
        self._plan: dict[ServiceName, dict[Member, Planned]] = {}
        self._members: dict[Key, list[Member]] = {}
        self._stale: set[ServiceName] = set()
        self._lock = threading.Lock()
        catalog.listen(self._hear)

    def configure(self, configured: Configured) -> None:
        """Go by these checks from now on."""
        if configured is self.configured:
            return
        names = {*configured, *self.configured}
        with self._lock:
            self._stale.update(name for name in names if configured.get(name) != self.configured.get(name))
            self.configured = configured

    def planned(self, member: Member) -> Planned | None:
        with self._lock:
            return self._plan.get((member.key.tenant, member.key.service), {}).get(member)

    def members_of(self, key: Key) -> Sequence[Member]:
        """All checks of an instance."""
        with self._lock:
            return self._members.get(key, ())

    def members(self) -> set[Member]:
        with self._lock:
            return {member for service in self._plan.values() for member in service}

    def replan(self) -> Replanned:
        """Work in what has changed since the last time."""
        changes = Replanned()
        with self._lock:
            stale, self._stale = self._stale, set()
            for name in stale:
                self._replan_service(name, changes)
        return changes

    def _hear(self, names: set[ServiceName]) -> None:
        with self._lock:
            self._stale |= names

    def _replan_service(self, name: ServiceName, changes: Replanned) -> None:
        before = self._plan.pop(name, {})
        for member in before:
            self._members.pop(member.key, None)
        after: dict[Member, Planned] = {}
        for instance in self.catalog.instances(*name):
            planned = dict(_plan(instance, self.configured.get(name, ())))
            if planned:
                self._members[instance.key] = list(planned)
            elif "probe" in instance.facts:
                changes.unchecked.add(instance.key)
            after.update(planned)
        if after:
            self._plan[name] = after
        dropped = before.keys() - after.keys()
        for member in dropped:
            self.told.pop(member.key, None)
        changes.dropped |= dropped
        changes.added |= after.keys() - before.keys()
        changes.changed |= {
            member for member in after.keys() & before.keys() if before[member].check != after[member].check
        }


def _plan(instance: Instance, configured: Sequence[Check]) -> Iterator[tuple[Member, Planned]]:
    for check in checks_of(instance, configured):
        target = target_of(instance, check)
        if target is not None:
            yield Member(instance.key, check.id), Planned(check, target)
