"""Which route takes a request, straight from what the documentation says: nothing of the gateway's matcher is used.

One route after another, Python's own regular expressions, and a sort. Paths of routes and requests are in normal form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote_plus

from gateway.proxy.policies import Pair
from gateway.proxy.table import Route

Headers = Sequence[tuple[bytes, bytes]]


def naive_winner(
    routes: Iterable[Route], host: str, method: str, path: str, headers: Headers = (), query: bytes = b""
) -> str | None:
    """The name of the route that takes the request; `host` in lower case, without port."""
    taking = [
        (precedence(route, on), route.name)
        for route in routes
        for on in ([each.lower() for each in route.hosts] or [None])
        if is_host(on, host)
        and is_path(route, path)
        and (not route.methods or method in route.methods)
        and all(first(sent_headers(headers), name) == value for name, value in asked(route.headers, fold=True).items())
        and all(first(sent_query(query), name) == value for name, value in asked(route.query).items())
    ]
    return min(taking)[1] if taking else None


def naive_methods(routes: Iterable[Route], host: str, path: str, headers: Headers = (), query: bytes = b"") -> set[str]:
    """The methods with which the request would be taken."""
    routes = list(routes)
    named = {method for route in routes for method in route.methods}
    return {method for method in named if naive_winner(routes, host, method, path, headers, query) is not None}


def precedence(route: Route, host: str | None) -> tuple[Any, ...]:
    """The first is the one that counts."""
    path = route.path.rstrip("/") if route.path_type == "prefix" else route.path
    return (
        -route.priority,
        2 if host is None else 1 if host.startswith("*.") else 0,
        -len(host or ""),
        ["exact", "regex", "prefix"].index(route.path_type),
        -len(path),
        not route.methods,
        -len(asked(route.headers, fold=True)),
        -len(asked(route.query)),
        route.created,
        route.name,
    )


def is_host(pattern: str | None, host: str) -> bool:
    if pattern is None:
        return True
    if not pattern.startswith("*."):
        return pattern == host
    labels, wanted = host.split("."), pattern.split(".")[1:]
    return len(labels) > len(wanted) and labels[-len(wanted) :] == wanted


def is_path(route: Route, path: str) -> bool:
    if route.path_type == "exact":
        return path == route.path
    if route.path_type == "regex":
        return re.fullmatch(route.path, path) is not None
    wanted = route.path.rstrip("/").split("/")
    return path.split("/")[: len(wanted)] == wanted


def asked(pairs: Iterable[Pair], *, fold: bool = False) -> dict[str, str]:
    """Of a name that is asked for twice, the first counts."""
    found: dict[str, str] = {}
    for pair in pairs:
        name = pair.name.lower() if fold else pair.name
        if name not in found:
            found[name] = pair.value
    return found


def sent_headers(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in headers]


def sent_query(query: bytes) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in query.decode().split("&") if part]
    return [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]


def first(sent: Iterable[tuple[str, str]], name: str) -> str | None:
    return next((value for each, value in sent if each == name), None)
