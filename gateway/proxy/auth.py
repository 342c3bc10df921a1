"""Who asks, and may they: the same key check as on the control plane's port, then scopes and tenant."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from anumate.lib.problem import Problem
from gateway.proxy.live import Binding
from registry.live.keys import KeyRecord, KeyRing

BEARER = b"bearer "
OUR_BEARER = b"bearer anm_"


def authenticate(ring: KeyRing, binding: Binding, known: Mapping[bytes, bytes], now: float) -> KeyRecord | None:
    """The key a request comes with; None on a route that asks for none.

    Raises:
        Problem: api_key_missing, api_key_invalid, api_key_expired, scope_missing, or route_not_found for a key of
        another tenant, to which the route does not exist.
    """
    if not binding.route.auth_required:
        return None
    client = ring.verify(presented_key(known), now)
    if client.tenant != binding.route.tenant:
        raise Problem("route_not_found", "No route takes this host, path, headers and query.")
    for scope in binding.scopes:
        if not client.allows(scope):
            raise Problem("scope_missing", f"The key needs scope {scope} here.")
    return client


def presented_key(known: Mapping[bytes, bytes]) -> str | None:
    """The key in X-API-Key, else in Authorization: Bearer."""
    key = known.get(b"x-api-key")
    if key is None:
        authorization = known.get(b"authorization")
        if authorization is None or authorization[:7].lower() != BEARER:
            return None
        key = authorization[7:].strip()
    return key.decode("latin-1")


def authorization_for_service(known: Mapping[bytes, bytes], client: KeyRecord | None) -> bytes | None:
    """What a service sees of Authorization: what is meant for it, never a key of ours."""
    authorization = known.get(b"authorization")
    if authorization is None or authorization[:11].lower() == OUR_BEARER:
        return None
    if client is not None and client.id and b"x-api-key" not in known:
        return None
    return authorization


def consumer_fields(client: KeyRecord) -> tuple[bytes, ...]:
    """The lines that tell a service who asks."""
    return _consumer_fields(client.id, client.name, client.tenant)


@lru_cache(maxsize=10_000)
def _consumer_fields(id: str, name: str, tenant: str) -> tuple[bytes, ...]:
    readable = quote(name, safe=" !#$&'()*+,-./:;=?@[]_~")
    lines = (f"x-consumer-id: {id}", f"x-consumer-name: {readable}", f"x-consumer-tenant: {tenant}")
    return tuple(line.encode("ascii") for line in lines)
