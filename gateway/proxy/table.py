"""The routing table: what `gateway.control.compile` writes and every gateway worker reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, Literal, TypeVar

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
from gateway.proxy.reports import Skipped

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
    """The same, as it is written: its parts are read one after another, so that others get their turn, and one that
    cannot be read spoils no other.
    """

    revision: int = 0
    routes: tuple[msgspec.Raw, ...] = ()
    upstreams: tuple[msgspec.Raw, ...] = ()
    rate_limits: tuple[msgspec.Raw, ...] = ()


class _Named(msgspec.Struct):
    tenant: str = ""
    name: str = ""
    service: str = ""


_Part = TypeVar("_Part")
_parts = msgspec.json.Decoder(_Parts)
_route = msgspec.json.Decoder(Route)
_upstream = msgspec.json.Decoder(Upstream)
_rate_limit = msgspec.json.Decoder(RateLimit)
_named = msgspec.json.Decoder(_Named)


def encode(table: RoutingTable) -> bytes:
    return msgspec.json.encode(table)


def decode(data: bytes) -> tuple[RoutingTable, list[Skipped]]:
    """What can be read of a table, and what cannot.

    Raises:
        msgspec.MsgspecError: it is none at all.
    """
    parts, skipped = _parts.decode(data), list[Skipped]()
    table = RoutingTable(
        parts.revision,
        routes=tuple(_read(_route, "Route", parts.routes, skipped)),
        upstreams=tuple(_read(_upstream, "Upstream", parts.upstreams, skipped)),
        rate_limits=tuple(_read(_rate_limit, "Rate-limit policy", parts.rate_limits, skipped)),
    )
    return table, skipped


def _read(
    decoder: msgspec.json.Decoder[_Part], kind: str, parts: Iterable[msgspec.Raw], skipped: list[Skipped]
) -> Iterator[_Part]:
    for part in parts:
        try:
            yield decoder.decode(part)
        except msgspec.MsgspecError as error:
            named = _Named()
            with suppress(msgspec.MsgspecError):
                named = _named.decode(part)
            name = named.name or named.service
            skipped.append(Skipped(named.tenant, name, f"{kind} {name} is left out: it cannot be read: {error}."))


def reads_credentials(table: RoutingTable) -> bool:
    """Whether a rule of the table goes by a field that keys come in: then requests differ by more than who asks."""
    names = [pair.name for route in table.routes for pair in route.headers]
    names += [target.header.name for route in table.routes for target in route.targets if target.header]
    names += [limit.by.removeprefix("header:") for limit in table.rate_limits]
    names += [each.sticky.by.removeprefix("header:") for each in table.upstreams]
    return any(name.lower() in _CREDENTIALS for name in names)
