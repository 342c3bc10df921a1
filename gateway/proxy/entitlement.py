"""What a route takes, and what a caller that has proved who it is may use. Data plane and explain ask here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.table import Route
from registry.live.keys import KeyRecord

INVOKE: Final = "gateway:invoke"


def scopes_of(route: Route) -> tuple[str, ...]:
    """Those that a caller needs, each once."""
    return tuple(dict.fromkeys((INVOKE, *route.scopes)))


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
