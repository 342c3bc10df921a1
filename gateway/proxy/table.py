"""The routing table: what `gateway.control.compile` writes and every gateway worker reads."""

from __future__ import annotations

from typing import Literal

import msgspec

PathType = Literal["exact", "prefix", "regex"]
Strategy = Literal["round_robin", "weighted", "least_connections", "p2c", "health_aware", "random", "hash"]


class Pair(msgspec.Struct, frozen=True):
    """A header or query parameter that must have this value."""

    name: str
    value: str


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """A share of a route's requests. `version` is a PEP 440 specifier, empty for any."""

    service: str
    weight: int = 100
    version: str = ""


class RateLimit(msgspec.Struct, frozen=True):
    """A token bucket. `by` is key, address, tenant, route or header:<name>; `rate` is tokens a second."""

    tenant: str
    name: str
    rate: float
    burst: int
    by: str


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True):
    """A breaker policy; the defaults are the contract's."""

    window_seconds: float = 10.0
    minimum_calls: int = 20
    failure_rate: float = 0.5
    consecutive_failures: int = 5
    slow_call_seconds: float | None = None
    slow_call_rate: float = 1.0
    open_seconds: float = 60.0
    half_open_calls: int = 3


class Upstream(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a service is balanced and guarded. `breaker` None: the defaults of the environment."""

    tenant: str
    service: str
    load_balancing: Strategy = "round_robin"
    breaker: Breaker | None = None


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """One route, as the data plane needs it. `created` (seconds since the epoch) breaks ties of precedence."""

    id: int
    name: str
    tenant: str
    targets: tuple[Target, ...]
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
    rate_limit: str = ""
    timeout_seconds: float = 30.0
    retries: int = 1


class RoutingTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """The section `routes`: everything that people configure for the gateway."""

    revision: int = 0
    routes: tuple[Route, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()


_decoder = msgspec.json.Decoder(RoutingTable)


def encode(table: RoutingTable) -> bytes:
    return msgspec.json.encode(table)


def decode(data: bytes) -> RoutingTable:
    """Raises msgspec.DecodeError or msgspec.ValidationError on what is no table."""
    return _decoder.decode(data)
