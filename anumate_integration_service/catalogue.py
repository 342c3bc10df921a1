"""Who is there, as this process last heard: indexed by service, asked without I/O.

Each service's instances and the answers given about them live on one shelf, and news replaces a shelf as a whole. So a
thread that reads meanwhile gets the old answer or the new one, never a mixture, and no lock is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from anumate_integration_service.instances import ServiceInstance
from anumate_integration_service.versions import constraint

Instances: TypeAlias = tuple[ServiceInstance, ...]
Words: TypeAlias = tuple[str, ...]
Question: TypeAlias = tuple[str, Words, Words, str]

MOST_ANSWERS: Final = 256
"""How many different questions about one service are remembered."""


class Shelf:
    """One service's instances in the order of their ids, and the answers already given about them."""

    __slots__ = ("answers", "by_id", "instances")

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.by_id = {instance.instance_id: instance for instance in instances}
        self.answers: dict[Question, Instances] = {("", (), (), ""): instances}

    def answer(self, question: Question) -> Instances:
        if len(self.answers) >= MOST_ANSWERS:
            return select(self.instances, question)
        return self.answers.setdefault(question, select(self.instances, question))

    def followed_by(self, instances: Instances) -> Shelf:
        """A shelf for other instances; an answer that comes out the same stays the same object."""
        shelf = Shelf(instances)
        for question, before in self.answers.copy().items():
            now = select(instances, question)
            shelf.answers[question] = before if now == before else now
        return shelf


class Catalogue:
    """Instances that may get traffic. One thread replaces, any thread asks."""

    def __init__(self) -> None:
        self._shelves: dict[str, Shelf] = {}
        self.instances: Instances = ()

    def find(
        self, name: str, version: str = "", tags: Words = (), capabilities: Words = (), zone: str = ""
    ) -> Instances:
        """The service's instances that fit; see `DiscoveryClient.instances`."""
        shelf = self._shelves.get(name)
        if shelf is None:
            return ()
        question = (version, tags, capabilities, zone)
        try:
            known = shelf.answers.get(question)
        except TypeError:  # a list, or another thing without a hash
            question = (version, tuple(tags), tuple(capabilities), zone)
            known = shelf.answers.get(question)
        return shelf.answer(question) if known is None else known

    def by_id(self, name: str) -> dict[str, ServiceInstance]:
        shelf = self._shelves.get(name)
        return shelf.by_id if shelf else {}

    def replace(self, instances: Iterable[ServiceInstance]) -> dict[str, set[str]]:
        """Take in a whole listing; answers which instances of which services came, went or changed."""
        groups: dict[str, dict[str, ServiceInstance]] = defaultdict(dict)
        for instance in instances:
            if instance.eligible:
                groups[instance.name][instance.instance_id] = instance
        shelves: dict[str, Shelf] = {}
        changed: dict[str, set[str]] = {}
        for name in sorted(self._shelves.keys() | groups.keys()):
            before = self._shelves.get(name)
            moved = set(_moved(before.by_id if before else {}, groups.get(name, {})))
            if moved:
                changed[name] = moved
            if name in groups:
                shelves[name] = before if before and not moved else _shelf(before, groups[name])
        if changed:
            self._shelves = shelves
            self.instances = tuple(instance for shelf in shelves.values() for instance in shelf.instances)
        return changed


def select(instances: Instances, question: Question) -> Instances:
    """Those that fit. The zone is a wish: with nobody in it, the others serve."""
    version, tags, capabilities, zone = question
    fits = constraint(version) if version else None
    wanted_tags, wanted_capabilities = set(tags), set(capabilities)
    found = tuple(
        instance
        for instance in instances
        if wanted_tags.issubset(instance.tags)
        and wanted_capabilities.issubset(instance.capabilities)
        and (fits is None or fits(instance.version))
    )
    near = tuple(instance for instance in found if instance.zone == zone) if zone else ()
    return near or found


def _shelf(before: Shelf | None, group: dict[str, ServiceInstance]) -> Shelf:
    """What did not change stays the same object."""
    known = before.by_id if before else {}
    instances = tuple(
        known[instance_id] if known.get(instance_id) == instance else instance
        for instance_id, instance in sorted(group.items())
    )
    return before.followed_by(instances) if before else Shelf(instances)


def _moved(before: dict[str, ServiceInstance], now: dict[str, ServiceInstance]) -> Iterator[str]:
    for instance_id in before.keys() | now.keys():
        if before.get(instance_id) != now.get(instance_id):
            yield instance_id
