"""Which of several instances gets the next request.

Pure: time, randomness and the key to hash are arguments. What is known of an instance (requests in flight, latency,
failures) is kept in its `Candidate`, which its owner keeps by instance id, so that it outlives changes of membership.
A strategy keeps only what belongs to the order of its picks, and tells a change of membership by the identity of the
tuple it is given.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final, Generic, Protocol, TypeVar

DECAY_SECONDS: Final = 10.0
"""How fast a latency or a failure is forgotten: after this time it weighs a third."""
CYCLE_LIMIT: Final = 4096
RING_POINTS: Final = 160

Random = Callable[[], float]
"""A number from 0 to 1, 1 excluded."""


class Candidate:
    """An instance, as balancing sees it. Its owner calls `started` and `ended` around each request."""

    __slots__ = ("failing", "id", "in_flight", "latency", "load", "seen", "wait", "weight")

    def __init__(self, id: str, weight: int = 1) -> None:
        self.id = id
        self.weight = max(weight, 1)
        self.in_flight = 0
        self.load = 0.0
        self.latency = 0.0
        self.wait = 0.0
        self.failing = 0.0
        self.seen = 0.0

    def started(self) -> None:
        self.in_flight += 1
        self.load = self.in_flight / self.weight

    def ended(self) -> None:
        self.in_flight -= 1
        self.load = self.in_flight / self.weight

    def observed(self, now: float, duration: float, failed: bool) -> None:
        """What an answer told. A request that the caller gave up tells nothing, so nothing is observed of it."""
        kept = math.exp((self.seen - now) / DECAY_SECONDS) if self.seen else 0.0
        self.seen = now
        # Peak-sensitive: a slow answer is believed at once, a fast one only in time.
        self.latency = duration if duration > self.latency else self.latency * kept + duration * (1.0 - kept)
        self.failing = self.failing * kept + (1.0 - kept if failed else 0.0)
        # What one request is likely to wait: an instance that fails fast is no bargain.
        working = max(1.0 - self.failing, 0.05)
        self.wait = self.latency / (working * working)

    def expect(self, latency: float) -> None:
        """What to go by until it has answered."""
        self.latency = self.wait = latency

    @property
    def cost(self) -> float:
        """What a further request is likely to wait here."""
        return self.wait * (self.in_flight + 1)


C = TypeVar("C", bound=Candidate)


class Strategy(Protocol[C]):
    """One service's order of picks. `candidates` is never empty; `key` is what the hash strategy hashes."""

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C: ...


class _InTurn:
    """Whose turn it is, whatever the membership became since."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def _turn(self, count: int) -> int:
        at = self._next
        return at if at < count else 0


class RoundRobin(_InTurn, Generic[C]):
    """Each in turn."""

    __slots__ = ()

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        at = self._turn(len(candidates))
        self._next = at + 1
        return candidates[at]


class Weighted(Generic[C]):
    """Smooth weighted round robin, as in nginx: shares by weight, without bursts to the heaviest.

    Each step raises every current by its weight, picks the highest and lowers it by the sum of weights. The picks
    repeat after at most the sum of weights (less common factors), so a short cycle is recorded on its first round and
    replayed from then on, whatever the number of instances.
    """

    __slots__ = ("_at", "_currents", "_cycle", "_members", "_picks", "_recording", "_start", "_total", "_weights")

    def __init__(self) -> None:
        self._members: tuple[C, ...] = ()
        self._weights: list[int] = []
        self._currents: list[int] = []
        self._start: list[int] = []
        self._picks: list[int] = []
        self._cycle: list[int] = []
        self._total = self._at = 0
        self._recording = False

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        if candidates is not self._members:
            self._rebind(candidates)
        if not self._cycle:
            return candidates[self._step()]
        at = self._at
        self._at = at + 1 if at + 1 < len(self._cycle) else 0
        return candidates[self._cycle[at]]

    def _rebind(self, candidates: tuple[C, ...]) -> None:
        """Go on with other members. Who stays keeps its current, so its turn neither comes twice nor is lost."""
        if self._cycle:
            self._currents = list(self._start)
            for _ in range(self._at):
                self._advance()
        kept = {member.id: current for member, current in zip(self._members, self._currents, strict=True)}
        self._members = candidates
        self._weights = [member.weight for member in candidates]
        self._total = sum(self._weights)
        self._currents = [kept.get(member.id, 0) for member in candidates]
        self._recording = self._total // math.gcd(*self._weights) <= CYCLE_LIMIT
        self._cycle = []
        self._begin_recording()

    def _begin_recording(self) -> None:
        self._start = list(self._currents)
        self._picks = []

    def _step(self) -> int:
        picked = self._advance()
        if self._recording:
            self._picks.append(picked)
            if self._currents == self._start:
                self._cycle, self._at = self._picks, 0
            elif len(self._picks) > CYCLE_LIMIT:
                # Currents taken over from other members lead into a cycle, but need not lie on it.
                self._begin_recording()
        return picked

    def _advance(self) -> int:
        currents = self._currents = [
            current + weight for current, weight in zip(self._currents, self._weights, strict=True)
        ]
        picked = currents.index(max(currents))
        currents[picked] -= self._total
        return picked


class LeastConnections(_InTurn, Generic[C]):
    """The fewest requests in flight for its weight; equals in turn."""

    __slots__ = ()

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        at = self._turn(len(candidates))
        best = candidates[at]
        least = best.load
        if least:
            for candidate in candidates[at:] + candidates[:at]:
                if candidate.load < least:
                    best = candidate
                    least = candidate.load
            if best is not candidates[at]:
                # The turn moves along, or the next idle one would get the turns of every busy one before it.
                at = candidates.index(best)
        self._next = at + 1
        return best


class PowerOfTwo(Generic[C]):
    """The less loaded of two at random: nearly as even as looking at all, and no herd runs to one."""

    __slots__ = ()

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        first, second = _two(candidates, random)
        return first if first.load <= second.load else second


class HealthAware(Generic[C]):
    """The cheaper of two at random by latency, load and failures (peak EWMA)."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: tuple[C, ...] = ()

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        if candidates is not self._members:
            self._rebind(candidates)
        first, second = _two(candidates, random)
        return first if first.wait * (first.in_flight + 1) <= second.wait * (second.in_flight + 1) else second

    def _rebind(self, candidates: tuple[C, ...]) -> None:
        """A newcomer starts with its peers' mean latency: with none it would win every comparison until it answers."""
        self._members = candidates
        known = [candidate.latency for candidate in candidates if candidate.seen]
        for candidate in candidates:
            if known and not candidate.seen:
                candidate.expect(sum(known) / len(known))


class Randomly(Generic[C]):
    """At random, by weight."""

    __slots__ = ("_members", "_sums")

    def __init__(self) -> None:
        self._members: tuple[C, ...] = ()
        self._sums: list[int] = []

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        if candidates is not self._members:
            self._members = candidates
            self._sums = list(accumulate(candidate.weight for candidate in candidates))
        return candidates[bisect(self._sums, random() * self._sums[-1])]


class Hashed(Generic[C]):
    """A key's own instance by consistent hashing: when one leaves, only its keys move. Without a key, at random.

    Shares follow the weights as parts of the heaviest: when the only heaviest one leaves, others' keys move too.
    """

    __slots__ = ("_members", "_owners", "_points")

    def __init__(self) -> None:
        self._members: tuple[C, ...] = ()
        self._points: list[int] = []
        self._owners: list[C] = []

    def pick(self, candidates: tuple[C, ...], now: float, random: Random, key: str = "") -> C:
        if candidates is not self._members:
            self._rebind(candidates)
        if not key:
            return candidates[int(random() * len(candidates))]
        at = bisect(self._points, _hash(key))
        return self._owners[at if at < len(self._owners) else 0]

    def _rebind(self, candidates: tuple[C, ...]) -> None:
        heaviest = max(candidate.weight for candidate in candidates)
        ring = [
            (_hash(f"{candidate.id}#{point}"), index)
            for index, candidate in enumerate(candidates)
            for point in range(max(1, RING_POINTS * candidate.weight // heaviest))
        ]
        ring.sort()
        self._members = candidates
        self._points = [point for point, _ in ring]
        self._owners = [candidates[index] for _, index in ring]


def _hash(text: str) -> int:
    # Not Python's own hash, which differs from process to process.
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _two(candidates: tuple[C, ...], random: Random) -> tuple[C, C]:
    """Two different ones at random; the same twice when there is only one."""
    count = len(candidates)
    if count == 1:
        return candidates[0], candidates[0]
    first = int(random() * count)
    second = int(random() * (count - 1))
    return candidates[first], candidates[second if second < first else second + 1]


STRATEGIES: Final[dict[str, Callable[[], Strategy[Any]]]] = {
    "round_robin": RoundRobin,
    "weighted": Weighted,
    "least_connections": LeastConnections,
    "p2c": PowerOfTwo,
    "health_aware": HealthAware,
    "random": Randomly,
    "hash": Hashed,
}
"""By the names they have in the configuration."""
