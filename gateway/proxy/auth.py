"""Who asks, and may they: the same key check as on the control plane's port, then scopes and tenant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from anumate.lib.problem import Problem
from gateway.proxy.entitlement import require_route, require_scopes
from gateway.proxy.exchange import Exchange
from gateway.proxy.live import Binding
from gateway.proxy.table import Route
from gateway.proxy.tokens import Consumer, Tokens, missing
from registry.live.keys import KeyRecord, KeyRing

BEARER: Final = b"bearer "
OUR_BEARER: Final = b"bearer anm_"
_READABLE: Final = " !#$&'()*+,-./:;=?@[]_~"


def authenticate(
    ring: KeyRing, tokens: Tokens, binding: Binding, x: Exchange, now: float, address_of: Callable[[Exchange], str]
) -> KeyRecord | None:
    """The key a request comes with; None on a route that asks for none. A key in the query is taken out of `x.query`.

    `address_of` tells where a request came from; only a key that is bound to networks asks for it.

    Raises:
        Problem: api_key_missing, api_key_invalid, api_key_expired, scope_missing, or route_not_found for a key of
        another tenant, to which the route does not exist.
    """
    if not binding.route.auth_required:
        return None
    route = binding.route
    client = _by_token(tokens, route, x, now) if "jwt" in route.auth.methods else None
    if client is None:
        client = _by_key(ring, route, x, now, address_of)
    require_scopes(client, binding.scopes)
    return client


def _by_token(tokens: Tokens, route: Route, x: Exchange, now: float) -> KeyRecord | None:
    """Who comes with a token; None where the request has none and a key may do instead."""
    authorization = x.known.get(b"authorization", b"")
    if authorization[:7].lower() == BEARER and authorization[:11].lower() != OUR_BEARER:
        if b"x-api-key" in x.known and "key" in route.auth.methods:
            raise Problem("api_key_invalid", "Send an API key or a token, not both.")
        return tokens.verify(route.tenant, route.auth.issuers, authorization[7:].strip().decode("latin-1"), now)
    if "key" in route.auth.methods:
        return None
    raise missing()


def _by_key(ring: KeyRing, route: Route, x: Exchange, now: float, address_of: Callable[[Exchange], str]) -> KeyRecord:
    presented = presented_key(x.known)
    if route.auth.query_parameter:
        x.query, found = take_parameter(x.query, route.auth.query_parameter.encode())
        presented = found if presented is None else presented
    client = ring.verify(presented, now)
    require_route(client, route, lambda: address_of(x))
    return client


def presented_key(known: Mapping[bytes, bytes]) -> str | None:
    """The key in X-API-Key, else in Authorization: Bearer.

    Raises:
        Problem: api_key_invalid, where there are several: which of them counts, another reader might see otherwise.
    """
    key, authorization = known.get(b"x-api-key"), known.get(b"authorization")
    if key is None:
        if authorization is None or authorization[:7].lower() != BEARER:
            return None
        key = authorization[7:].strip()
    elif authorization is not None and authorization[:11].lower() == OUR_BEARER:
        raise Problem("api_key_invalid", "Send one API key, in X-API-Key or as Authorization: Bearer.")
    if b"," in key:  # lines of one name make one list
        raise Problem("api_key_invalid", "Send one API key, not several.")
    return key.decode("latin-1")


def take_parameter(query: bytes, name: bytes) -> tuple[bytes, str | None]:
    """The query without the parameter, its other bytes as they were; and the parameter's value, None where it is not
    there. The name is found in any of its encodings: services decode it, too.

    Raises:
        Problem: api_key_invalid, where it is there more than once.
    """
    rest, values = [], []
    for part in query.split(b"&"):
        said, _, value = part.partition(b"=")
        if _decoded(said) == name:
            values.append(_decoded(value))
        else:
            rest.append(part)
    if not values:
        return query, None
    if len(values) > 1:
        raise Problem("api_key_invalid", "Send one API key in the query, not several.")
    return b"&".join(rest), values[0].decode("latin-1")


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def authorization_for_service(known: Mapping[bytes, bytes], client: KeyRecord | None) -> bytes | None:
    """What a service sees of Authorization: what is meant for it, never a key of ours."""
    authorization = known.get(b"authorization")
    if authorization is None or authorization[:11].lower() == OUR_BEARER:
        return None
    bearer = authorization[:7].lower() == BEARER
    if isinstance(client, Consumer):
        return authorization  # services commonly read tokens themselves
    if bearer and client is not None and client.id and b"x-api-key" not in known:
        return None
    return authorization


def consumer_fields(client: KeyRecord) -> tuple[bytes, ...]:
    """The lines that tell a service who asks."""
    if isinstance(client, Consumer):
        fields = _consumer_fields(quote(client.subject, safe=_READABLE), client.name, client.tenant)
        return (*fields, b"x-consumer-issuer: " + quote(client.issuer, safe=_READABLE).encode("ascii"))
    return _consumer_fields(client.id, client.name, client.tenant)


@lru_cache(maxsize=10_000)
def _consumer_fields(id: str, name: str, tenant: str) -> tuple[bytes, ...]:
    readable = quote(name, safe=_READABLE)
    lines = (f"x-consumer-id: {id}", f"x-consumer-name: {readable}", f"x-consumer-tenant: {tenant}")
    return tuple(line.encode("ascii") for line in lines)
