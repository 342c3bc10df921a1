"""Routes that can never match, because of what they say or because others come first, and redirects without end.

What is said here is true for every request; what is not said may be true nevertheless: of regular expressions only the
plain cases are judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from anumate.lib.problem import Problem
from gateway.control.compile import compile_table
from gateway.control.publish import publisher
from gateway.models import JwtIssuer
from gateway.proxy.paths import compile_pattern
from gateway.proxy.patterns import beginning, match_range
from gateway.proxy.router import Rule
from gateway.proxy.table import Route, RoutingTable
from registry.models import Service

MOST_NAMED = 5
_BECOMES_GET: Final = (301, 302, 303)
"""Statuses after which a client may come again with GET, whatever it came with (RFC 9110 §15.4)."""


def warnings_about(id: int) -> list[str]:
    """What a person should know about the route that was just saved: a sentence for each thing."""
    table = publisher.current() or compile_table(0).table
    route = next((each for each in table.routes if each.id == id), None)
    return [*warnings(route, table), *_loose_ends(route)] if route is not None else []


def _loose_ends(route: Route) -> list[str]:
    """Names that the route mentions, of things that are not there (yet)."""
    found: list[str] = []
    mirror, issuers = route.mirror.service, set(route.auth.issuers)
    if mirror and not Service.objects.filter(tenant__name=route.tenant, name=mirror).exists():
        found.append(f"The mirror's service {mirror} does not exist yet.")
    if "jwt" in route.auth.methods:
        known = set(JwtIssuer.objects.filter(tenant__name=route.tenant, enabled=True).values_list("name", flat=True))
        if missing := sorted(issuers - known):
            found.append(f"Nobody can come with a token of {_named(missing)}: there is no such JWT issuer.")
        elif not known:
            found.append("Nobody can come with a token: there is no JWT issuer.")
    return found


def warnings(route: Route, table: RoutingTable) -> list[str]:
    """Pure: `warnings_about`, for a route of this table."""
    near = [each for each in table.routes if each.tenant == route.tenant and each.id != route.id]
    own = _rules([route])
    found = [*_contradictions(route)]
    if own and _comes_back(route, own, near):
        found.append(f"The redirect of {route.name} leads to itself, and so never ends.")
    before = _rules(each for each in near if _paths_meet(each, route))
    blockers = [_coverers(rule, before) for rule in own]
    if own and all(blockers):
        names = list(dict.fromkeys(each.route.name for some in blockers for each in some))
        comes = "comes first and takes" if len(names) == 1 else "come first and take"
        found.append(f"No request ever comes to {route.name}: {_named(names)} {comes} all that it could take.")
    shadowed = [
        each.name
        for each in near
        if _paths_meet(route, each) and (theirs := _rules([each])) and all(_coverers(rule, own) for rule in theirs)
    ]
    if shadowed:
        found.append(
            f"No request comes to {_named(shadowed)} any more: {route.name} comes first and takes all of them."
        )
    return found


def _contradictions(route: Route) -> Iterator[str]:
    """What the route says and no request can fulfil, or what of it does not count."""
    if route.path_type == "regex" and _never_a_path(route.path):
        yield (
            f"No request ever comes to {route.name}: its expression is matched against the whole path, and begins "
            "without the slash that every path has in front."
        )
    if route.path_type != "regex" and route.path.startswith("/-/"):
        yield f"No request ever comes to {route.name}: what is below /-/ the gateway answers itself."
    for what, pairs in (
        ("header", [(pair.name.lower(), pair.value) for pair in route.headers]),
        ("query parameter", [(pair.name, pair.value) for pair in route.query]),
    ):
        asked: dict[str, list[str]] = defaultdict(list)
        for name, value in pairs:
            asked[name].append(value)
        for name, values in asked.items():
            if any(value != values[0] for value in values):
                first = f"only the first, {values[0]!r}, counts."
                yield f"{route.name} asks for {what} {name} with different values: {first}"


def _never_a_path(pattern: str) -> bool:
    """Whether RE2 knows that what matches the whole expression begins with something else than a slash."""
    try:
        least, most = match_range(compile_pattern(pattern))
    except ValueError:
        return False  # is named elsewhere
    return bool(most) and (most < b"/" or least >= b"0")  # nothing at all: RE2 does not know


def _comes_back(route: Route, own: list[Rule], near: list[Route]) -> bool:
    """Whether the client that is sent elsewhere comes to the route again, and is sent on by it again.

    Another scheme or port, and a host that the route does not name, may lead to another server.
    """
    redirect = route.redirect
    if not redirect.status or redirect.scheme:
        return False
    if redirect.status in _BECOMES_GET and route.methods and "GET" not in route.methods:
        return False
    if redirect.host and not any(rule.host and _host_covers(rule.host, redirect.host.lower()) for rule in own):
        return False
    try:
        moved = msgspec.structs.replace(route, path=_moved_path(route))
        hosts = [redirect.host.lower()] if redirect.host else [rule.host for rule in own]
        new = [Rule(moved, host) for host in hosts]
    except (ValueError, Problem):
        return False
    others = _rules(each for each in near if _paths_meet(each, moved))
    return all(
        any(
            _path_covers(rule, each)
            and _host_covers(rule.host, each.host)
            and not any(other.key < rule.key and covers(other, each) for other in others)
            for rule in own
        )
        for each in new
    )


def _moved_path(route: Route) -> str:
    """What the route's path is after the redirect. Of expressions, only one without groups is told."""
    new = route.redirect.path or route.path
    if route.path_type != "regex" or not route.redirect.path:
        return new
    if "\\" in new or compile_pattern(route.path).fullmatch(new) is None:
        raise ValueError
    return route.path


def _rules(routes: Iterable[Route]) -> list[Rule]:
    found: list[Rule] = []
    for route in routes:
        try:
            found += [Rule(route, host.lower()) for host in dict.fromkeys(route.hosts or ("",))]
        except (ValueError, Problem):
            continue  # it serves nothing, and is named elsewhere
    return found


def _coverers(rule: Rule, others: Iterable[Rule]) -> list[Rule]:
    """Those that come first and take every request that the rule could take: one alone, or else one for some methods,
    and others for the rest. None where they leave any."""
    found: list[Rule] = []
    left = set(rule.methods)
    for other in others:
        if other.key < rule.key and _covers_but_methods(other, rule):
            if _methods_cover(other, rule):
                return [other]
            if left & other.methods:
                found.append(other)
                left -= other.methods
    return [] if left else found


def covers(one: Rule, other: Rule) -> bool:
    """Whether every request that `other` takes fulfils the conditions of `one`."""
    return _methods_cover(one, other) and _covers_but_methods(one, other)


def _methods_cover(one: Rule, other: Rule) -> bool:
    return not one.methods or (bool(other.methods) and other.methods <= one.methods)


def _covers_but_methods(one: Rule, other: Rule) -> bool:
    return (
        _host_covers(one.host, other.host)
        and one.headers.items() <= other.headers.items()
        and one.query.items() <= other.query.items()
        and _path_covers(one, other)
    )


def _host_covers(one: str, other: str) -> bool:
    return not one or one == other or (one.startswith("*.") and other.removeprefix("*").endswith(one[1:]))


def _path_covers(one: Rule, other: Rule) -> bool:
    kind, theirs = one.route.path_type, other.route.path_type
    if kind == "prefix":
        if theirs == "regex":
            return not one.prefix or beginning(other.pattern).startswith(one.prefix + "/")
        return other.prefix == one.prefix or other.prefix.startswith(one.prefix + "/")
    if kind == "exact":
        return theirs == "exact" and one.prefix == other.prefix
    if theirs == "regex":
        return one.route.path == other.route.path
    return theirs == "exact" and one.pattern is not None and one.pattern.fullmatch(other.prefix) is not None


def _paths_meet(one: Route, other: Route) -> bool:
    """Whether it is worth a closer look: so that of thousands of routes, few are compiled."""
    if one.path_type == "prefix" and other.path_type != "regex":
        return other.path.startswith(one.path.rstrip("/")) or "%" in one.path or "%" in other.path
    if one.path_type == "regex" or other.path_type == "regex":
        return one.path_type != "exact"
    return one.path == other.path or "%" in one.path


def _named(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
