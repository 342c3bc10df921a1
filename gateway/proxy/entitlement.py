"""What a route takes, what a request brings to prove who asks, and what a caller that has proved it may use. Data plane
and explain ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.table import Route
from registry.live.keys import KeyRecord
from registry.live.presented import OURS, bearer, presented_key

INVOKE: Final = "gateway:invoke"


def scopes_of(route: Route) -> tuple[str, ...]:
    """Those that a caller needs, each once."""
    return tuple(dict.fromkeys((INVOKE, *route.scopes)))


def presented_token(route: Route, known: Mapping[bytes, bytes], in_query: Sequence[str]) -> bytes | None:
    """The token that comes to a route that takes tokens; `in_query` is what stood where keys do.

    Raises:
        Problem: api_key_invalid, where a key comes besides.
    """
    token = bearer(known.get(b"authorization", b""))
    if token is None or token.startswith(OURS):
        return None
    if (b"x-api-key" in known or in_query) and "key" in route.auth.methods:
        raise Problem("api_key_invalid", "Send an API key or a token, not both.")
    return token


def one_key(known: Mapping[bytes, bytes], in_query: Sequence[str]) -> str | None:
    """The key that comes to a route that takes keys.

    Raises:
        Problem: api_key_invalid, where there are several.
    """
    presented = presented_key(known)
    if not in_query:
        return presented
    if presented is not None or len(in_query) > 1:
        raise Problem("api_key_invalid", "Send one API key, in a field or in the query, not several.")
    return in_query[0]


def require_scopes(client: KeyRecord, scopes: Iterable[str]) -> None:
    """Raises Problem: scope_missing."""
    for scope in scopes:
        if not client.allows(scope):
            raise Problem("scope_missing", f"The key needs scope {scope} here.")


def require_websockets(route: Route) -> None:
    """Raises Problem: malformed_request."""
    if not route.websockets.enabled:
        raise Problem("malformed_request", f"Route {route.name} takes no WebSocket connections.")


def require_route(client: KeyRecord, route: Route, address: Callable[[], str]) -> None:
    """Whether a key is for this route, and for where it comes from; `address` is asked only where that matters.

    Raises:
        Problem: scope_missing, or route_not_found for a key of another tenant, to which the route does not exist.
    """
    if client.tenant != route.tenant:
        raise Problem("route_not_found", "No route takes this host, path, headers and query.")
    if client.routes and route.name not in client.routes:
        raise Problem("scope_missing", f"The key is not for route {route.name}.")
    if client.networks:
        client.require_network(address())
