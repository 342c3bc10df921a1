"""Who asks, and may they: the same key check as on the control plane's port, then scopes and tenant.

Data plane and explain ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import quote

from gateway.proxy.entitlement import one_key, presented_token, require_route, require_scopes
from gateway.proxy.exchange import Exchange
from gateway.proxy.rewriting import without_keys
from gateway.proxy.table import Route
from gateway.proxy.tokens import Consumer, Tokens, missing
from registry.live.keys import KeyRecord, KeyRing
from registry.live.presented import bearer, holds_ours

_READABLE: Final = " !#$&'()*+,-./:;=?@[]_~"


class Guarded(Protocol):
    """A route, and the scopes that a caller of it needs."""

    @property
    def route(self) -> Route: ...

    @property
    def scopes(self) -> tuple[str, ...]: ...


def authenticate(
    ring: KeyRing, tokens: Tokens, binding: Guarded, x: Exchange, now: float, address_of: Callable[[Exchange], str]
) -> KeyRecord | None:
    """The key a request comes with; None on a route that asks for none.

    Where the route has a query parameter for keys, it is taken out of `x.query`, whoever lets the request in.

    `address_of` tells where a request came from; only a key that is bound to networks asks for it.

    Raises:
        Problem: api_key_missing, api_key_invalid, api_key_expired, scope_missing, or route_not_found for a key of
        another tenant, to which the route does not exist.
    """
    route = binding.route
    x.query, in_query = without_keys(route, x.query)
    if not route.auth_required:
        return None
    client = _by_token(tokens, route, x, in_query, now) if "jwt" in route.auth.methods else None
    if client is None:
        client = _by_key(ring, route, x, in_query, now, address_of)
    require_scopes(client, binding.scopes)
    return client


def _by_token(tokens: Tokens, route: Route, x: Exchange, in_query: Sequence[str], now: float) -> KeyRecord | None:
    """Who comes with a token; None where the request has none and a key may do instead."""
    token = presented_token(route, x.known, in_query)
    if token is not None:
        return tokens.verify(route.tenant, route.auth.issuers, token.decode("latin-1"), now)
    if "key" in route.auth.methods:
        return None
    raise missing()


def _by_key(
    ring: KeyRing,
    route: Route,
    x: Exchange,
    in_query: Sequence[str],
    now: float,
    address_of: Callable[[Exchange], str],
) -> KeyRecord:
    client = ring.verify(one_key(x.known, in_query), now)
    require_route(client, route, lambda: address_of(x))
    return client


def authorization_for_service(known: Mapping[bytes, bytes], client: KeyRecord | None) -> bytes | None:
    """What a service sees of Authorization: what is meant for it, never a key of ours."""
    authorization = known.get(b"authorization")
    if authorization is None or holds_ours(authorization):
        return None
    if isinstance(client, Consumer):
        return authorization  # services commonly read tokens themselves
    if bearer(authorization) is not None and client is not None and client.id and b"x-api-key" not in known:
        return None
    return authorization


def consumer_lines(client: KeyRecord | None) -> bytes:
    """The lines that tell a service who asks, if anybody says."""
    if client is None or not client.id:
        return b""
    if isinstance(client, Consumer):
        lines = _consumer_lines(quote(client.subject, safe=_READABLE), client.name, client.tenant)
        return lines + b"x-consumer-issuer: %b\r\n" % quote(client.issuer, safe=_READABLE).encode("ascii")
    return _consumer_lines(client.id, client.name, client.tenant)


@lru_cache(maxsize=10_000)
def _consumer_lines(id: str, name: str, tenant: str) -> bytes:
    readable = quote(name, safe=_READABLE)
    lines = f"x-consumer-id: {id}\r\nx-consumer-name: {readable}\r\nx-consumer-tenant: {tenant}\r\n"
    return lines.encode("ascii")
