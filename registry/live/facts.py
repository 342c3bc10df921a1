"""What is said of instances, services and zones: verdicts, reports, operators' words; and which of two words counts.

No mapping that is handed out is changed afterwards: news takes the place of the old one, so instances hold it uncopied.
"""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping
from sys import intern

from registry.live.instances import Fact, Key

NO_FACTS: dict[str, Fact] = {}


class Facts:
    """By whom they are about. What the database says of operators' words stands beside what the store says."""

    def __init__(self) -> None:
        self._said: dict[Key, dict[str, Fact]] = {}
        self._decided: dict[Key, Fact] = {}

    def said(self, key: Key) -> dict[str, Fact]:
        """What the store says of it."""
        return self._said.get(key, NO_FACTS)

    def keys(self) -> KeysView[Key]:
        """Of whom the store says something."""
        return self._said.keys()

    def items(self) -> ItemsView[Key, dict[str, Fact]]:
        """Everything that the store says."""
        return self._said.items()

    def of(self, key: Key) -> dict[str, Fact]:
        """What holds of it by itself. Of the store's word and the database's the later one counts."""
        facts, decided = self.said(key), self._decided.get(key)
        if decided is None or ((said := facts.get("state")) and said.since > decided.since):
            return facts
        return {**facts, "state": decided}

    def about(self, key: Key, zone: str) -> dict[str, Fact]:
        """An instance's own facts with the words about its service and its zone."""
        facts = self.of(key)
        if word := self.of(Key(key.tenant, key.service)).get("state"):
            facts = {**facts, "service_state": word}
        if zone and (word := self.of(Key(key.tenant, "", zone)).get("state")):
            facts = {**facts, "zone_state": word}
        return facts

    def put(self, key: Key, kind: str, fact: Fact | None) -> Fact | None:
        """Take in what the store says now, None for nothing; answers what it said before."""
        facts = self.said(key)
        before = facts.get(kind)
        rest = {name: each for name, each in facts.items() if name != kind}
        if fact is not None:
            self._said[key] = {**rest, intern(kind): _slim(fact)}
        elif rest:
            self._said[key] = rest
        else:
            self._said.pop(key, None)
        return before

    def forget(self, key: Key) -> None:
        """All but the operator's word, as the store does when an instance goes."""
        facts = self._said.pop(key, None)
        if facts and "state" in facts:
            self._said[key] = {"state": facts["state"]}

    def decide(self, states: Mapping[Key, Fact]) -> set[Key]:
        """Take in what the database says operators want; answers of whom that is news."""
        before, self._decided = self._decided, dict(states)
        return {key for key in before.keys() | states.keys() if before.get(key) != states.get(key)}


def _slim(fact: Fact) -> Fact:
    """The few values and sources that there are stand in memory once."""
    return Fact(intern(fact.value), fact.sentence, fact.since, intern(fact.source), fact.expires_at, fact.weight)
