"""Which instance gets a request: targets by weight, then the service's strategy over its eligible instances.

Everything that depends on the table or the catalogue alone is bound when one of them changes; a request only picks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from anumate.lib import clock
from anumate_integration_service.balancing import STRATEGIES, Candidate, Random, Strategy
from gateway.proxy.table import RoutingTable, Target
from gateway.proxy.upstream import Pool
from registry.live.catalog import Catalog
from registry.live.instances import Endpoint as Address
from registry.live.instances import Instance

DEFAULT_STRATEGY: Final = "round_robin"
REST_SECONDS: Final = 2.0
"""How long an instance that took no connection is left alone; twice as long each time in a row."""
REST_LIMIT: Final = 30.0
Pair = tuple[str, str]


class Endpoint(Candidate):
    """An instance as the gateway uses it: its connections, and what balancing knows of it."""

    __slots__ = ("_rest_seconds", "pool", "rests_until", "service")

    def __init__(self, service: str, id: str, weight: int, pool: Pool) -> None:
        super().__init__(id, weight)
        self.service = service
        self.pool = pool
        self.rests_until = 0.0
        self._rest_seconds = REST_SECONDS

    def rest(self, now: float) -> None:
        """It took no connection: leave it alone until health checks have had time to see that."""
        if now < self.rests_until:
            return  # requests that failed together are one failure
        self.rests_until = now + self._rest_seconds
        self._rest_seconds = min(2 * self._rest_seconds, REST_LIMIT)

    def reached(self) -> None:
        """It answered, so its next rest is a short one again."""
        self._rest_seconds = REST_SECONDS


class Group:
    """The instances of a service that a target may use: eligible, of its versions and tags, with an HTTP endpoint."""

    __slots__ = ("endpoints", "service", "strategy", "strategy_name", "tags", "tenant", "version")

    def __init__(self, tenant: str, target: Target) -> None:
        self.tenant = tenant
        self.service = target.service
        self.version = _specifier(target.version)
        self.tags = frozenset(target.tags)
        self.strategy_name = ""
        self.strategy: Strategy[Endpoint] = STRATEGIES[DEFAULT_STRATEGY]()
        self.endpoints: tuple[Endpoint, ...] = ()

    def use(self, strategy: str) -> None:
        if strategy != self.strategy_name:
            self.strategy_name = strategy
            self.strategy = STRATEGIES[strategy]()


Share = tuple[Group, int]


class Balancer:
    """All groups and endpoints of this worker. An endpoint lives as long as its instance, whatever is published."""

    def __init__(self, catalog: Catalog, random: Random, wall: clock.Clock = clock.wall) -> None:
        self._catalog = catalog
        self._random = random
        self._wall = wall
        self._groups: dict[tuple[str, Target], Group] = {}
        self._of_service: dict[Pair, list[Group]] = {}
        self._endpoints: dict[Pair, dict[str, Endpoint]] = {}
        self._recheck_at: dict[Pair, float] = {}

    def adopt(self, table: RoutingTable) -> None:
        """Have a group for every target of the table, and none besides."""
        strategies = {(each.tenant, each.service): each.load_balancing for each in table.upstreams}
        wanted = {(route.tenant, _selection(target)) for route in table.routes for target in route.targets}
        wanted |= {(route.tenant, Target(route.mirror.service)) for route in table.routes if route.mirror.service}
        self._groups = {key: self._groups.get(key) or Group(*key) for key in wanted}
        self._of_service = {}
        for group in self._groups.values():
            self._of_service.setdefault((group.tenant, group.service), []).append(group)
            group.use(strategies.get((group.tenant, group.service), DEFAULT_STRATEGY))
        self.refresh({*self._of_service, *self._endpoints})

    def shares(self, tenant: str, targets: Iterable[Target]) -> tuple[Share, ...]:
        """A route's targets as groups with weights."""
        return tuple((self._groups[tenant, _selection(target)], target.weight) for target in targets)

    def refresh(self, pairs: Collection[Pair]) -> None:
        """Bind the groups of these services to what the catalogue says now."""
        now = self._wall()
        for pair in pairs:
            groups = self._of_service.get(pair, [])
            instances = self._catalog.instances(*pair) if groups else ()
            known = self._endpoints.get(pair, {})
            eligible = [
                (instance, _endpoint(instance, instance.weight(now), address, known))
                for instance in instances
                if instance.eligible(now) and (address := _http_address(instance))
            ]
            self._keep(pair, known, {endpoint.id: endpoint for _, endpoint in eligible})
            for group in groups:
                group.endpoints = _weighty([each for each in eligible if _fits(group, each[0])], now)
            self._note_expiry(pair, instances, now)

    def refresh_due(self) -> None:
        """Bind again where an operator's word has ended since."""
        now = self._wall()
        due = [pair for pair, at in self._recheck_at.items() if at <= now]
        self.refresh(due)

    def pick(self, shares: tuple[Share, ...], now: float, key: str, tried: Collection[str] = ()) -> Endpoint | None:
        """The instance for a request, other than those `tried`; None when there is none.

        One that rests is picked only when all that are left do.
        """
        group = shares[0][0] if len(shares) == 1 else self._share(shares)
        if not tried and group.endpoints:
            endpoint = group.strategy.pick(group.endpoints, now, self._random, key)
            if endpoint.rests_until <= now:
                return endpoint
        usable = [each for each, weight in shares if weight or len(shares) == 1]
        left = [e for each in usable for e in each.endpoints if name_of(e) not in tried]
        if not left:
            return None
        left = [endpoint for endpoint in left if endpoint.rests_until <= now] or left
        for _ in range(len(group.endpoints)):
            endpoint = group.strategy.pick(group.endpoints, now, self._random, key)
            if endpoint in left:
                return endpoint
        return left[int(self._random() * len(left))]

    def endpoints(self) -> Iterable[Endpoint]:
        return (endpoint for known in self._endpoints.values() for endpoint in known.values())

    def close(self) -> None:
        for endpoint in self.endpoints():
            endpoint.pool.close()

    def _share(self, shares: tuple[Share, ...]) -> Group:
        """A target by weight, among those that have an instance: a share without one would be requests lost."""
        able = [share for share in shares if share[1] and share[0].endpoints]
        if not able:
            return shares[0][0]
        point = self._random() * sum(weight for _, weight in able)
        for group, weight in able:
            point -= weight
            if point < 0:
                return group
        return able[-1][0]

    def _keep(self, pair: Pair, known: dict[str, Endpoint], wanted: dict[str, Endpoint]) -> None:
        for endpoint in known.values():
            if wanted.get(endpoint.id) is not endpoint:
                endpoint.pool.close()  # what is under way ends by itself
        if wanted:
            self._endpoints[pair] = wanted
        else:
            self._endpoints.pop(pair, None)

    def _note_expiry(self, pair: Pair, instances: Iterable[Instance], now: float) -> None:
        ends = [f.expires_at for i in instances for f in i.facts.values() if f.expires_at > now]
        if ends:
            self._recheck_at[pair] = min(ends)
        else:
            self._recheck_at.pop(pair, None)


def _endpoint(instance: Instance, weight: int, address: Address, known: dict[str, Endpoint]) -> Endpoint:
    # Weight 0 is judged by `_weighty`; where such an instance gets requests, it is among its like.
    key, weight = instance.key, max(weight, 1)
    endpoint = known.get(key.id)
    if endpoint is None or (endpoint.pool.host, endpoint.pool.port) != (address.host, address.port):
        endpoint = Endpoint(key.service, key.id, weight, Pool(address.host, address.port))
    endpoint.weight = weight
    return endpoint


def _http_address(instance: Instance) -> Address | None:
    """Its endpoint named `http`, else the first that speaks HTTP."""
    endpoints = instance.document.endpoints
    preferred = endpoints.get("http")
    if preferred is not None and preferred.protocol == "http":
        return preferred
    return next((each for each in endpoints.values() if each.protocol == "http"), None)


def _weighty(eligible: list[tuple[Instance, Endpoint]], now: float) -> tuple[Endpoint, ...]:
    """Without those of weight 0, as long as others are there. Endpoints are in several groups, so none is changed."""
    weighty = tuple(endpoint for instance, endpoint in eligible if instance.weight(now) > 0)
    return weighty or tuple(endpoint for _, endpoint in eligible)


def _specifier(text: str) -> SpecifierSet | None:
    return SpecifierSet(text, prereleases=True) if text else None


def _selection(target: Target) -> Target:
    """What of a target says which instances may be used."""
    return Target(target.service, version=target.version, tags=target.tags)


def _fits(group: Group, instance: Instance) -> bool:
    if not group.tags.issubset(instance.document.tags):
        return False
    if group.version is None:
        return True
    try:
        return Version(instance.document.version) in group.version
    except InvalidVersion:
        return False


def name_of(endpoint: Endpoint) -> str:
    """How people are told which instance it was."""
    return f"{endpoint.service}/{endpoint.id}"


def check_targets(targets: Iterable[Target]) -> str:
    """What is wrong with a route's targets; empty when nothing is."""
    for target in targets:
        try:
            _specifier(target.version)
        except InvalidSpecifier:
            return f"{target.version!r} is no version specifier."
    return ""
