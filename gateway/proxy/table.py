"""The routing table: what `gateway.control.compile` writes and every gateway worker reads."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy.policies import (
    AccessLog,
    Address,
    Auth,
    Cors,
    HeaderEdits,
    Hedge,
    Limits,
    Mirror,
    Outlier,
    Pair,
    Redirect,
    Retry,
    Rewrite,
    Sticky,
    Timeouts,
    Tls,
    WebSockets,
    ZoneUse,
)

_CREDENTIALS: Final = ("x-api-key", "authorization")
"""Fields in which keys come."""

PathType = Literal["exact", "prefix", "regex"]
Strategy = Literal["round_robin", "weighted", "least_connections", "p2c", "health_aware", "random", "hash"]


class Target(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A share of a route's requests, or those that carry its `header` or `cookie` (a canary by choice).

    `version` is a PEP 440 specifier, empty for any; an instance must have all of `tags`.
    """

    service: str
    weight: int = 100
    version: str = ""
    tags: tuple[str, ...] = ()
    header: Pair | None = None
    cookie: Pair | None = None


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """A token bucket. `by` is key, address, tenant, route or header:<name>; `rate` is tokens a second."""

    tenant: str
    name: str
    rate: float
    burst: int
    by: str


class Upstream(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How a service is balanced, guarded and reached. `breaker` None: the defaults of the environment.

    `addresses` take the place of what the registry knows; `tls_key` is the sealed private key to the TLS certificate.
    """

    tenant: str
    service: str
    load_balancing: Strategy = "round_robin"
    breaker: BreakerPolicy | None = None
    sticky: Sticky = Sticky()
    slow_start_seconds: float = 0.0
    panic_threshold: float = 0.0
    zone: ZoneUse = "off"
    outlier: Outlier = Outlier()
    concurrent: int = 0
    addresses: tuple[Address, ...] = ()
    tls: Tls = Tls()
    tls_key: str = ""


class Route(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One route, as the data plane needs it. `created` (seconds since the epoch) breaks ties of precedence."""

    id: int
    name: str
    tenant: str
    targets: tuple[Target, ...] = ()
    hosts: tuple[str, ...] = ()
    path: str = "/"
    path_type: PathType = "prefix"
    methods: tuple[str, ...] = ()
    headers: tuple[Pair, ...] = ()
    query: tuple[Pair, ...] = ()
    priority: int = 0
    created: float = 0.0
    strip_prefix: bool = True
    auth_required: bool = True
    scopes: tuple[str, ...] = ()
    rate_limits: tuple[str, ...] = ()
    timeout_seconds: float = 30.0
    retries: int = 1
    rewrite: Rewrite = Rewrite()
    redirect: Redirect = Redirect()
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    mirror: Mirror = Mirror()
    cors: Cors = Cors()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    hedge: Hedge = Hedge()
    limits: Limits = Limits()
    auth: Auth = Auth()
    access_log: AccessLog = AccessLog()
    websockets: WebSockets = WebSockets()


class RoutingTable(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The section `routes`: everything that people configure for the gateway."""

    revision: int = 0
    routes: tuple[Route, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()


class _Parts(msgspec.Struct):
    """The same, with the routes as they are written: they are read one after another, so that others get their turn."""

    revision: int = 0
    routes: tuple[msgspec.Raw, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()


_parts = msgspec.json.Decoder(_Parts)
_route = msgspec.json.Decoder(Route)


def encode(table: RoutingTable) -> bytes:
    return msgspec.json.encode(table)


def decode(data: bytes) -> RoutingTable:
    """Raises msgspec.DecodeError or msgspec.ValidationError on what is no table."""
    parts = _parts.decode(data)
    routes = [_route.decode(route) for route in parts.routes]
    return RoutingTable(parts.revision, tuple(routes), parts.upstreams, parts.rate_limits)


def reads_credentials(table: RoutingTable) -> bool:
    """Whether a rule of the table goes by a field that keys come in: then requests differ by more than who asks."""
    names = [pair.name for route in table.routes for pair in route.headers]
    names += [target.header.name for route in table.routes for target in route.targets if target.header]
    names += [limit.by.removeprefix("header:") for limit in table.rate_limits]
    names += [each.sticky.by.removeprefix("header:") for each in table.upstreams]
    return any(name.lower() in _CREDENTIALS for name in names)
