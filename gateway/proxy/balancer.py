"""Which instance gets a request: targets by weight, then the service's strategy over its eligible instances.

Everything that depends on the table or the catalogue alone is bound when one of them changes; a request only picks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Final

from packaging.specifiers import InvalidSpecifier

from anumate.lib import clock
from anumate_integration_service.balancing import STRATEGIES, Random, Strategy
from gateway.proxy import tls
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.exchange import Exchange
from gateway.proxy.outlier import Outliers
from gateway.proxy.rendezvous import digest, favourite
from gateway.proxy.reports import LeftOut
from gateway.proxy.selection import Selection
from gateway.proxy.sticky import Sticky, sticky_of
from gateway.proxy.table import Route, Target, Upstream
from gateway.proxy.tls import Secure
from gateway.proxy.upstream import Pool
from registry.live.catalog import Catalog
from registry.live.instances import Document, Instance, Key
from registry.live.instances import Endpoint as Address

Pair = tuple[str, str]

MOST_LEFT_OUT: Final = 200
"""Instances in a report."""


class Group:
    """The instances of a service that a target may use: eligible, of its versions and tags, with an HTTP endpoint."""

    __slots__ = ("endpoints", "selection", "service", "sticky", "strategy", "strategy_name", "tenant")

    def __init__(self, tenant: str, target: Target) -> None:
        self.tenant = tenant
        self.service = target.service
        self.selection = Selection(target)
        self.strategy_name = ""
        self.strategy: Strategy[Endpoint]
        self.sticky: Sticky | None = None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.use(Upstream(tenant, target.service))

    def use(self, upstream: Upstream) -> None:
        """Pick as the service's upstream says."""
        self.sticky = sticky_of(upstream.sticky)
        if upstream.load_balancing != self.strategy_name:
            self.strategy_name = upstream.load_balancing
            self.strategy = STRATEGIES[upstream.load_balancing]()


Share = tuple[Group, int]
Wanted = tuple[str, Target]
"""A tenant, and a selection of a service's instances."""


def wanted_by(routes: Iterable[Route]) -> set[Wanted]:
    """All that requests on these routes go to, copies included."""
    wanted: set[Wanted] = set()
    for route in routes:
        wanted.update([(route.tenant, _selection(target)) for target in route.targets])
        if route.mirror.service:
            wanted.add((route.tenant, Target(route.mirror.service)))
    return wanted


class Balancer:
    """All groups and endpoints of this worker. An endpoint lives as long as its instance, whatever is published."""

    def __init__(
        self,
        catalog: Catalog,
        random: Random,
        wall: clock.Clock = clock.wall,
        monotonic: clock.Clock = clock.monotonic,
        zone: str = "",
    ) -> None:
        self._catalog = catalog
        self._random = random
        self._wall = wall
        self._now = monotonic
        self._zone = zone
        self._upstreams: dict[Pair, Upstream] = {}
        self._secure: Mapping[Pair, Secure] = {}
        self._outliers: dict[Pair, Outliers] = {}
        self._groups: dict[Wanted, Group] = {}
        self._of_service: dict[Pair, list[Group]] = {}
        self._endpoints: dict[Pair, dict[str, Endpoint]] = {}
        self._recheck_at: dict[Pair, float] = {}

    def adopt(
        self,
        upstreams: Iterable[Upstream],
        wanted: Iterable[Wanted],
        secure: Mapping[Pair, Secure] = MappingProxyType({}),
    ) -> None:
        """Have a group for all that is wanted, and none besides. `secure` says how TLS is spoken to whom."""
        self._upstreams = {(each.tenant, each.service): each for each in upstreams}
        self._secure = secure
        self._groups = {key: self._groups.get(key) or Group(*key) for key in wanted}
        self._of_service = {}
        for group in self._groups.values():
            self._of_service.setdefault((group.tenant, group.service), []).append(group)
            group.use(self._upstream((group.tenant, group.service)))
        self._outliers = {pair: self._outliers_of(pair) for pair in self._of_service}
        self.refresh({*self._of_service, *self._endpoints})

    def _upstream(self, pair: Pair) -> Upstream:
        return self._upstreams.get(pair) or Upstream(*pair)

    def _outliers_of(self, pair: Pair) -> Outliers:
        policy = self._upstream(pair).outlier
        known = self._outliers.get(pair)
        if known is None:
            return Outliers(policy)
        known.policy = policy
        return known

    def shares(self, tenant: str, targets: Iterable[Target]) -> tuple[Share, ...]:
        """A route's targets as groups with weights."""
        return tuple((self._groups[tenant, _selection(target)], target.weight) for target in targets)

    def refresh(self, pairs: Collection[Pair]) -> None:
        """Bind the groups of these services to what the catalogue says now."""
        now = self._wall()
        for pair in pairs:
            groups = self._of_service.get(pair, [])
            upstream = self._upstream(pair)
            instances = self._instances(upstream) if groups else ()
            known = self._endpoints.get(pair, {})
            eligible = [
                (instance, self._endpoint(instance, address, upstream, known, now))
                for instance in _eligible(instances, upstream.panic_threshold, now)
                if (address := _http_address(instance, secure=pair in self._secure))
            ]
            self._keep(pair, known, {endpoint.id: endpoint for _, endpoint in eligible})
            for group in groups:
                fit = [each for each in eligible if group.selection.takes(each[0])]
                group.endpoints = _weighty(_near(fit, upstream.zone, self._zone), now)
            self._note_expiry(pair, instances, now)

    def _instances(self, upstream: Upstream) -> Collection[Instance]:
        if not upstream.addresses:
            return self._catalog.instances(upstream.tenant, upstream.service)
        return [_stationary(upstream, index) for index in range(len(upstream.addresses))]

    def _endpoint(
        self, instance: Instance, address: Address, upstream: Upstream, known: dict[str, Endpoint], now: float
    ) -> Endpoint:
        pair = upstream.tenant, upstream.service
        secure = (self._secure.get(pair) or tls.usual()) if address.protocol == "https" else None
        # Weight 0 is judged by `_weighty`; where such an instance gets requests, it is among its like.
        id, weight = instance.key.id, max(instance.weight(now), 1)
        endpoint = known.get(id)
        if endpoint is None or endpoint.pool.target != (address.host, address.port, secure):
            pool = Pool(address.host, address.port, secure)
            endpoint = Endpoint(upstream.service, id, weight, pool, instance.document.zone)
            if upstream.slow_start_seconds:
                # Who was there before this worker looked is as warm as the time since it registered.
                age = 0.0 if known else max(0.0, now - instance.registered_at)
                endpoint.start_slowly(self._now() - age, upstream.slow_start_seconds)
        endpoint.weight = weight
        endpoint.outliers = self._outliers.get(pair)
        return endpoint

    def refresh_due(self) -> None:
        """Bind again where an operator's word has ended since."""
        now = self._wall()
        due = [pair for pair, at in self._recheck_at.items() if at <= now]
        self.refresh(due)

    def pick(
        self,
        shares: tuple[Share, ...],
        now: float,
        key: str,
        tried: Collection[str] = (),
        x: Exchange | None = None,
    ) -> Endpoint | None:
        """The instance for a request, other than those `tried`; None when there is none.

        One that rests is picked only when all that are left do.
        """
        group = shares[0][0] if len(shares) == 1 else self._share(shares)
        if group.sticky is not None and x is not None and (subject := group.sticky.subject(x)):
            return _loyal(shares, group, digest(subject), now, tried)
        if not tried and group.endpoints:
            endpoint = group.strategy.pick(group.endpoints, now, self._random, key)
            if endpoint.careful_until <= now or (endpoint.rests_until <= now and self._is_warm(group, endpoint, now)):
                return endpoint
        left = _left(shares, now, tried)
        if not left:
            return None
        for _ in range(len(group.endpoints)):
            endpoint = group.strategy.pick(group.endpoints, now, self._random, key)
            if endpoint in left and self._is_warm(group, endpoint, now):
                return endpoint
        return left[int(self._random() * len(left))]

    def _is_warm(self, group: Group, endpoint: Endpoint, now: float) -> bool:
        """Whether it may have this request: in its slow start, chance decides. A key's own instance is always warm."""
        return group.strategy_name == "hash" or self._random() < endpoint.warmth(now)

    def left_out(self, now: float) -> tuple[LeftOut, ...]:
        """Who gets no requests for now, as far as a report has room."""
        found = (
            LeftOut(tenant, service, each.id, round(each.rests_until - now, 3), each.left_out_for)
            for (tenant, service), known in self._endpoints.items()
            for each in known.values()
            if each.rests_until > now
        )
        return tuple(islice(found, MOST_LEFT_OUT))

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
        if outliers := self._outliers.get(pair):
            outliers.members = wanted.values()
            outliers.tidy()

    def _note_expiry(self, pair: Pair, instances: Iterable[Instance], now: float) -> None:
        ends = [f.expires_at for i in instances for f in i.facts.values() if f.expires_at > now]
        if ends:
            self._recheck_at[pair] = min(ends)
        else:
            self._recheck_at.pop(pair, None)


def _left(shares: tuple[Share, ...], now: float, tried: Collection[str]) -> list[Endpoint]:
    """Who may still be tried, of all targets that take any request; who rests only where nobody else is left."""
    usable = [group for group, weight in shares if weight or len(shares) == 1]
    left = [endpoint for group in usable for endpoint in group.endpoints if endpoint.name not in tried]
    return [endpoint for endpoint in left if endpoint.rests_until <= now] or left


def _loyal(
    shares: tuple[Share, ...], group: Group, subject: int, now: float, tried: Collection[str]
) -> Endpoint | None:
    """The subject's own instance; its next choice, where that one rests or was tried."""
    left = _left(((group, 1),), now, tried) or _left(shares, now, tried)
    return favourite(left, subject) if left else None


def _eligible(instances: Collection[Instance], panic_threshold: float, now: float) -> Sequence[Instance]:
    """Those that may get traffic. Where too few are left of those that are meant to serve, all of these: rather a few
    failures than the end of the healthy ones too (Envoy's panic threshold)."""
    if not panic_threshold:
        return [instance for instance in instances if instance.eligible(now)]
    enabled = [instance for instance in instances if instance.state(now) == "enabled"]
    well = [instance for instance in enabled if instance.health != "unhealthy"]
    return enabled if len(well) < panic_threshold * len(enabled) else well


def _near(eligible: list[tuple[Instance, Endpoint]], use: str, zone: str) -> list[tuple[Instance, Endpoint]]:
    """Those of the gateway's own zone, where the service wants that."""
    if use == "off" or not zone:
        return eligible
    near = [each for each in eligible if each[1].zone == zone]
    return near if near or use == "strict" else eligible


def _stationary(upstream: Upstream, index: int) -> Instance:
    """A place that the upstream names, as if it had registered."""
    address = upstream.addresses[index]
    name = f"{address.host}:{address.port}"
    place = Address(address.protocol, address.host, address.port)
    document = Document(endpoints={address.protocol: place}, weight=address.weight, zone=address.zone)
    return Instance(Key(upstream.tenant, upstream.service, name), document, 0.0)


def _http_address(instance: Instance, *, secure: bool) -> Address | None:
    """Its endpoint named `http`, else the first that speaks HTTP; where TLS is set up for the service, one with TLS
    before one without."""
    endpoints = instance.document.endpoints
    plain = endpoints.get("http")
    if plain is None or plain.protocol != "http":
        plain = next((each for each in endpoints.values() if each.protocol == "http"), None)
    if plain is not None and not secure:
        return plain
    return next((each for each in endpoints.values() if each.protocol == "https"), plain)


def _weighty(eligible: list[tuple[Instance, Endpoint]], now: float) -> tuple[Endpoint, ...]:
    """Without those of weight 0, as long as others are there. Endpoints are in several groups, so none is changed."""
    weighty = tuple(endpoint for instance, endpoint in eligible if instance.weight(now) > 0)
    return weighty or tuple(endpoint for _, endpoint in eligible)


def _selection(target: Target) -> Target:
    """What of a target says which instances may be used."""
    return Target(target.service, version=target.version, tags=target.tags)


def check_targets(targets: Iterable[Target]) -> str:
    """What is wrong with a route's targets; empty when nothing is."""
    for target in targets:
        try:
            Selection(target)
        except InvalidSpecifier:
            return f"{target.version!r} is no version specifier."
    return ""
