"""What is known of an instance while it lives. Plain values, shared by lane, catalogue, health and gateway.

They are frozen and made from JSON, so they form no cycles: the garbage collector need not look at 100,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

Health = Literal["healthy", "degraded", "unhealthy", "unknown"]
State = Literal["enabled", "draining", "maintenance"]

WORDS: Final = ("state", "service_state", "zone_state")
"""The kinds of facts by which operators speak, the one that decides first: instance, its service, its zone."""
_WORST_FIRST: tuple[Health, ...] = ("unhealthy", "degraded", "healthy")


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where one protocol of an instance listens. The first endpoint of an instance is its main one."""

    protocol: Literal["http", "https", "grpc", "tcp"]
    host: str
    port: int


class Fact(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What somebody found or decided about an instance or a service, with the sentence that says why.

    `since` and `expires_at` are seconds since the epoch; `expires_at` 0 means: until it is changed. `weight` is an
    operator's in place of the registered one; None leaves that in force.
    """

    value: str
    sentence: str = ""
    since: float = 0.0
    source: str = ""
    expires_at: float = 0.0
    weight: int | None = None


class Key(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """Names an instance; with an empty `id`, the whole service; with an empty `service`, the zone `id` of a tenant."""

    tenant: str
    service: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.tenant}/{self.service}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> Key:
        return cls(*text.split("/", 2))


class Document(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an instance said of itself when it registered; kept in Redis as JSON."""

    version: str = ""
    endpoints: dict[str, Endpoint] = {}
    capabilities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    zone: str = ""
    weight: int = 100
    metadata: dict[str, str] = {}
    lease_ttl: int = 30


class Instance(msgspec.Struct, frozen=True, gc=False):
    """An instance with a live lease, and the facts about it. `facts` is keyed by kind, service-wide facts included.

    Kinds: `probe` (health checks' verdict), `reported` (what its heartbeats say), operators' words `state` (of the
    instance), `service_state` (of the whole service) and `zone_state` (of all instances in its zone), and `held` (its
    lease lapsed in a crowd, and it still gets traffic).
    """

    key: Key
    document: Document
    registered_at: float
    facts: dict[str, Fact] = {}

    @property
    def health(self) -> Health:
        """The worst of what checks found and what the instance says of itself; unknown when neither spoke."""
        if not self.facts:
            return "unknown"
        said = {fact.value for kind in ("probe", "reported") if (fact := self.facts.get(kind))}
        return next((health for health in _WORST_FIRST if health in said), "unknown")

    def words(self, now: float) -> Iterator[tuple[str, Fact]]:
        """What operators said that is in force at `now`, with its kind; the nearest to the instance first."""
        for kind in WORDS:
            fact = self.facts.get(kind)
            if fact and not (fact.expires_at and fact.expires_at <= now):
                yield kind, fact

    def state(self, now: float) -> State:
        """What operators want of it now. The nearest word decides, `enabled` too: an instance that was enabled by name
        stays so while its service or its zone drains."""
        if not self.facts:
            return "enabled"
        word = next(self.words(now), None)
        return word[1].value if word else "enabled"  # type: ignore[return-value]

    def weight(self, now: float) -> int:
        """Its share of the traffic: of the nearest word that names a weight, else what it registered with."""
        if not self.facts:
            return self.document.weight
        named = (fact.weight for _, fact in self.words(now) if fact.weight is not None)
        return next(named, self.document.weight)

    def eligible(self, now: float) -> bool:
        """Whether it may get traffic. Unknown health may; draining, maintenance and unhealthy may not."""
        return self.health != "unhealthy" and self.state(now) == "enabled"
