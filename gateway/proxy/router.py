"""Which route takes a request, and why the others do not.

Pure: the data plane matches with it, the control plane explains with it.

Precedence: explicit priority, then the Gateway API's rules: the most specific host, exact path before pattern before
longest prefix, a method, most headers, most query parameters, the oldest route, its name. All of it is known when the
table is loaded, so every rule gets a rank then, and matching is: collect the few rules whose host and path fit, take
the lowest rank whose other conditions hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from anumate.lib.problem import Problem
from gateway.proxy.paths import compile_pattern, read_path
from gateway.proxy.rewriting import Rewriting
from gateway.proxy.table import Route, RoutingTable

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""
_Text = TypeVar("_Text", str, bytes)

_AT_A_TIME: Final = 500
_PATH_KINDS: Final = {"exact": 0, "regex": 1, "prefix": 2}
_PRECEDENCE: Final = (
    "has a higher priority",
    "names a more specific host",
    "names a more specific host",
    "has a more specific kind of path",
    "has a longer path",
    "names its methods",
    "asks for more headers",
    "asks for more query parameters",
    "is older",
    "comes first by name",
)


class Rule:
    """A route on one of its hosts, compiled."""

    __slots__ = (
        "headers",
        "host",
        "key",
        "methods",
        "pattern",
        "plain",
        "prefix",
        "query",
        "rank",
        "rewriting",
        "route",
    )

    def __init__(self, route: Route, host: str) -> None:
        self.route = route
        self.host = host
        self.rank = 0
        self.methods = frozenset(route.methods)
        self.headers = _first_wins((pair.name.lower().encode(), pair.value.encode()) for pair in route.headers)
        self.query = _first_wins((pair.name, pair.value) for pair in route.query)
        self.plain = not (self.methods or self.headers or self.query)
        self.pattern = compile_pattern(route.path) if route.path_type == "regex" else None
        path = route.path if self.pattern else read_path(route.path.encode()).matched
        self.prefix = path.rstrip("/") if route.path_type == "prefix" else path
        self.rewriting = Rewriting(route, self.prefix)
        wildcard = host.startswith("*.")
        self.key = (
            -route.priority,
            0 if wildcard else -len(host),
            -len(host),
            _PATH_KINDS[route.path_type],
            -len(self.prefix),
            0 if self.methods else 1,
            -len(self.headers),
            -len(self.query),
            route.created,
            route.name,
        )

    def accepts(self, method: str, headers: Headers, query: bytes) -> bool:
        return self.plain or ((not self.methods or method in self.methods) and self.conditions_hold(headers, query))

    def conditions_hold(self, headers: Headers, query: bytes) -> bool:
        return not (self.headers and _unmet_header(self, headers)) and not (self.query and _unmet_query(self, query))


def _first_wins(pairs: Iterable[tuple[_Text, _Text]]) -> dict[_Text, _Text]:
    found: dict[_Text, _Text] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _unmet_header(rule: Rule, headers: Headers) -> bytes | None:
    """The first header that the rule asks for and the request has not, or has with another value."""
    sent = _first_wins((name, value) for name, value in headers if name in rule.headers)
    return next((name for name, value in rule.headers.items() if sent.get(name) != value), None)


def _unmet_query(rule: Rule, query: bytes) -> str | None:
    sent = _first_wins(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))
    return next((name for name, value in rule.query.items() if sent.get(name) != value), None)


class _Node:
    """A segment of a path. `rules` are the prefixes that end here."""

    __slots__ = ("children", "rules")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.rules: list[Rule] = []


class _Paths:
    """The rules of one host, found by path."""

    __slots__ = ("exact", "patterns", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, list[Rule]] = {}
        self.patterns: list[Rule] = []
        self.prefixes = _Node()

    def add(self, rule: Rule) -> None:
        if rule.pattern:
            self.patterns.append(rule)
        elif rule.route.path_type == "exact":
            self.exact.setdefault(rule.prefix, []).append(rule)
        else:
            node = self.prefixes
            for segment in rule.prefix.split("/")[1:]:
                deeper = node.children.get(segment)
                if deeper is None:
                    deeper = node.children[segment] = _Node()
                node = deeper
            node.rules.append(rule)

    def collect(self, path: str, found: list[list[Rule]]) -> None:
        if rules := self.exact.get(path):
            found.append(rules)
        if self.patterns:
            found.append([rule for rule in self.patterns if rule.pattern and rule.pattern.fullmatch(path)])
        node = self.prefixes
        if node.rules:
            found.append(node.rules)
        for segment in path.split("/")[1:]:
            deeper = node.children.get(segment)
            if deeper is None:
                return
            node = deeper
            if node.rules:
                found.append(node.rules)

    def dismantle(self) -> None:
        self.exact.clear()
        self.patterns.clear()
        nodes = [self.prefixes]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            node.children.clear()
            node.rules.clear()


class _Hosts:
    """The rules of one tenant, found by host. `anywhere` are those of routes without hosts."""

    __slots__ = ("anywhere", "exact", "rules", "wildcard")

    def __init__(self) -> None:
        self.exact: dict[str, _Paths] = {}
        self.wildcard: dict[str, _Paths] = {}
        self.anywhere = _Paths()
        self.rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        self.rules.append(rule)
        if rule.host.startswith("*."):
            self.wildcard.setdefault(rule.host[2:], _Paths()).add(rule)
        elif rule.host:
            self.exact.setdefault(rule.host, _Paths()).add(rule)
        else:
            self.anywhere.add(rule)

    def collect(self, host: str, path: str) -> list[list[Rule]]:
        """Lists of rules whose host and path fit, each in order of rank."""
        found: list[list[Rule]] = []
        if self.exact and (paths := self.exact.get(host)):
            paths.collect(path, found)
        if self.wildcard:
            parent = host.partition(".")[2]
            while parent:
                if paths := self.wildcard.get(parent):
                    paths.collect(path, found)
                parent = parent.partition(".")[2]
        self.anywhere.collect(path, found)
        return found


class Explained(NamedTuple):
    """What one route has to say about a request."""

    route: str
    takes_it: bool
    sentence: str


class Router:
    """All rules of a table. `skipped` names the routes that could not be compiled, with the sentence why."""

    def __init__(self, table: RoutingTable) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._tenants: dict[str, _Hosts] = {}
        rules = [rule for route in table.routes for rule in self._compile(route)]
        for rank, rule in enumerate(_in_order(rules)):
            rule.rank = rank
            self._tenants.setdefault(rule.route.tenant, _Hosts()).add(rule)

    def _compile(self, route: Route) -> list[Rule]:
        try:
            return [Rule(route, host.lower()) for host in dict.fromkeys(route.hosts or ("",))]
        except (ValueError, Problem) as error:  # BadPattern is one
            self.skipped.append((route.name, f"Route {route.name} is left out: {error}"))
            return []

    def dismantle(self) -> None:
        """Let go of all rules, some at a time: a large table that ends at once holds everybody up."""
        for hosts in self._tenants.values():
            for paths in (hosts.anywhere, *hosts.exact.values(), *hosts.wildcard.values()):
                paths.dismantle()
            while hosts.rules:
                del hosts.rules[-_AT_A_TIME:]

    def match(self, tenant: str, host: str, method: str, path: str, headers: Headers = (), query: bytes = b"") -> Rule:
        """The rule that takes the request; `path` in normal form, `host` in lower case and without port.

        Raises:
            Problem: route_not_found, or method_not_allowed where only the method stands in the way.
        """
        hosts = self._tenants.get(tenant)
        found = hosts.collect(host, path) if hosts else []
        best: Rule | None = None
        for rules in found:
            for rule in rules:
                if best is not None and best.rank < rule.rank:
                    break
                if rule.accepts(method, headers, query):
                    best = rule
                    break
        if best is None:
            raise _nothing_matches(found, headers, query)
        return best

    def explain(
        self, tenant: str, host: str, method: str, path: str, headers: Headers = (), query: bytes = b""
    ) -> list[Explained]:
        """Every route of the tenant, in order of precedence, with the sentence why it takes the request or not."""
        hosts = self._tenants.get(tenant)
        judged = [(rule, _why_not(rule, host, method, path, headers, query)) for rule in (hosts.rules if hosts else ())]
        winner = next((rule for rule, obstacle in judged if obstacle is None), None)
        verdicts: dict[str, Explained] = {}
        for rule, obstacle in judged:
            name = rule.route.name
            if rule is winner:
                verdicts[name] = Explained(name, True, _why(rule))
            elif obstacle is not None or winner is None:
                verdicts.setdefault(name, Explained(name, False, obstacle or ""))
            elif not (name in verdicts and verdicts[name].takes_it):
                # A route with several hosts speaks for the one that came closest.
                verdicts[name] = Explained(name, False, _why_later(rule, winner))
        return list(verdicts.values())


def _in_order(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Sorted, in parts: a sort of ten thousand lets nobody else have a turn for 25 ms."""
    parts = (rules[start : start + _AT_A_TIME] for start in range(0, len(rules), _AT_A_TIME))
    return merge(*(sorted(part, key=_key) for part in parts), key=_key)


_key = attrgetter("key")


def _nothing_matches(found: list[list[Rule]], headers: Headers, query: bytes) -> Problem:
    others = {
        method for rules in found for rule in rules if rule.conditions_hold(headers, query) for method in rule.methods
    }
    if not others:
        return Problem("route_not_found", "No route takes this host, path, headers and query.")
    allowed = ", ".join(sorted(others))
    return Problem("method_not_allowed", f"Routes here take {allowed}.", headers={"Allow": allowed})


def _host_fits(rule: Rule, host: str) -> bool:
    return not rule.host or rule.host == host or (rule.host.startswith("*.") and host.endswith(rule.host[1:]))


def _path_fits(rule: Rule, path: str) -> bool:
    if rule.pattern:
        return rule.pattern.fullmatch(path) is not None
    if rule.route.path_type == "exact":
        return path == rule.prefix
    return path == rule.prefix or path.startswith(rule.prefix + "/")


def _why(rule: Rule) -> str:
    host = f" on {rule.host}" if rule.host else ""
    return f"It takes the request: its {rule.route.path_type} path {rule.route.path}{host} fits, and it comes first."


def _why_not(rule: Rule, host: str, method: str, path: str, headers: Headers, query: bytes) -> str | None:
    if not _host_fits(rule, host):
        return f"Its host is {rule.host}, not {host}."
    if not _path_fits(rule, path):
        return f"Its {rule.route.path_type} path {rule.route.path} does not fit {path}."
    if rule.methods and method not in rule.methods:
        return f"It takes {', '.join(sorted(rule.methods))}, not {method}."
    if name := _unmet_header(rule, headers):
        return f"It asks for header {name.decode()} with value {rule.headers[name].decode()!r}."
    if parameter := _unmet_query(rule, query):
        return f"It asks for query parameter {parameter} with value {rule.query[parameter]!r}."
    return None


def _why_later(rule: Rule, winner: Rule) -> str:
    first = next((i for i, (ours, theirs) in enumerate(zip(rule.key, winner.key, strict=True)) if ours != theirs), -1)
    return f"It fits, but {winner.route.name} comes first: it {_PRECEDENCE[first]}."
