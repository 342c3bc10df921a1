"""Which route takes a request, and why the others do not.

Pure: the data plane matches with it, the control plane explains with it.

Precedence: explicit priority, then the Gateway API's rules: the most specific host, exact path before pattern before
longest prefix, a method, most headers, most query parameters, the oldest route, its name. All of it is known when the
table is loaded, so every rule gets a rank then, and matching is: collect the few rules whose host and path fit, take
the lowest rank whose other conditions hold. However many rules there are, few are tried: hosts and paths are looked up,
expressions are tried at once (`patterns.py`), and many rules at one place are looked up by what they ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from heapq import merge
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from anumate.lib.problem import Problem
from gateway.proxy.paths import compile_pattern, read_path
from gateway.proxy.patterns import MOST_INSTRUCTIONS, Patterns, TooMuchWork
from gateway.proxy.reports import Skipped
from gateway.proxy.rewriting import Rewriting
from gateway.proxy.table import Route, RoutingTable

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""
_Text = TypeVar("_Text", str, bytes)

_Condition = tuple[bytes, bytes] | tuple[str, str]
"""A header or a query parameter, and the value that it has to have."""

_AT_A_TIME: Final = 500
_ANY: Final = ""
"""No method, in place of those of a rule that names none."""
_FEW: Final = 4
"""Rules at one place that are tried one after the other: up to here that is as quick as looking them up."""
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
        self.headers = _first_wins([(pair.name.lower().encode(), pair.value.encode()) for pair in route.headers])
        self.query = _first_wins([(pair.name, pair.value) for pair in route.query])
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
        return self.plain or (self.takes(method) and self.conditions_hold(headers, query))

    def takes(self, method: str) -> bool:
        return not self.methods or method in self.methods

    def conditions_hold(self, headers: Headers, query: bytes) -> bool:
        return self.unmet_header(headers) is None and self.unmet_parameter(query) is None

    def unmet_header(self, headers: Headers) -> bytes | None:
        """The first header that it asks for and the request has not, or has with another value."""
        return _unmet(self.headers, _first_wins(headers)) if self.headers else None

    def unmet_parameter(self, query: bytes) -> str | None:
        return _unmet(self.query, _parameters(query)) if self.query else None


def _first_wins(pairs: Sequence[tuple[_Text, _Text]]) -> dict[_Text, _Text]:
    """Last name first."""
    return dict(reversed(pairs))


def _unmet(asked: dict[_Text, _Text], sent: Mapping[_Text, _Text]) -> _Text | None:
    for name, value in reversed(asked.items()):
        if sent.get(name) != value:
            return name
    return None


@lru_cache(maxsize=1)
def _parameters(query: bytes) -> Mapping[str, str]:
    """Kept for the next rule that asks."""
    return _first_wins(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))


class _Crowd(list[Rule]):
    """Many rules at one place: each is found by one of the conditions it has, and is tried only where that holds.

    That is the condition which the fewest share; those that share it are a crowd again, if they are many.
    """

    __slots__ = ("_headers", "_others", "_query")

    def __init__(self, rules: Sequence[Rule], held: frozenset[_Condition] = frozenset()) -> None:
        super().__init__(rules)
        self._others: list[Rule] = []
        self._headers: dict[bytes, dict[bytes, list[Rule]]] = {}
        self._query: dict[str, dict[str, list[Rule]]] = {}
        rules = list(_that_count(rules))
        shares = Counter(each for rule in rules for each in _conditions(rule) if each not in held)
        found: dict[_Condition, list[Rule]] = {}
        for rule in rules:
            rarest = min((each for each in _conditions(rule) if each in shares), key=shares.__getitem__, default=None)
            (self._others if rarest is None else found.setdefault(rarest, [])).append(rule)
        for condition, those in found.items():
            # A condition that all share is the rarest only where all ask for the same.
            place = _Crowd(those, held | {condition}) if _FEW < len(those) < len(rules) else those
            if isinstance(condition[0], bytes):
                self._headers.setdefault(condition[0], {})[condition[1]] = place
            else:
                self._query.setdefault(condition[0], {})[condition[1]] = place

    def narrow(self, headers: Mapping[bytes, bytes], query: bytes, found: list[list[Rule]]) -> None:
        """Lists of the rules that may take a request with these headers and parameters, each in order of rank."""
        if self._others:
            found.append(self._others)
        for name in self._headers.keys() & headers.keys():
            if place := self._headers[name].get(headers[name]):
                _narrow(place, headers, query, found)
        if self._query:
            sent = _parameters(query)
            for parameter in self._query.keys() & sent.keys():
                if place := self._query[parameter].get(sent[parameter]):
                    _narrow(place, headers, query, found)


def _that_count(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Those, of one place and in order of rank, that earlier ones with the same conditions leave any method."""
    taken: dict[frozenset[_Condition], set[str]] = {}
    for rule in rules:
        methods = taken.setdefault(frozenset(_conditions(rule)), set())
        left = (rule.methods or {_ANY}) - methods
        if left and _ANY not in methods:
            methods |= left
            yield rule


def _conditions(rule: Rule) -> Iterator[_Condition]:
    yield from rule.headers.items()
    yield from rule.query.items()


def _narrow(place: list[Rule], headers: Mapping[bytes, bytes], query: bytes, found: list[list[Rule]]) -> None:
    if isinstance(place, _Crowd):
        place.narrow(headers, query, found)
    else:
        found.append(place)


def _narrowed(places: list[list[Rule]], headers: Headers, query: bytes) -> list[list[Rule]]:
    """The same places, with those rules of crowds only that may take the request."""
    found: list[list[Rule]] = []
    sent = _first_wins(headers)
    for place in places:
        _narrow(place, sent, query, found)
    return found


def _ready(place: list[Rule]) -> list[Rule]:
    """The same rules, in order of rank, fit for being many."""
    return _Crowd(place) if len(place) > _FEW else place


class _Node:
    """A segment of a path. `rules` are the prefixes that end here."""

    __slots__ = ("children", "rules")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.rules: list[Rule] = []


class _Paths:
    """The rules of one host, found by path. `expressions` are by their text."""

    __slots__ = ("exact", "expressions", "patterns", "places", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, list[Rule]] = {}
        self.expressions: dict[str, list[Rule]] = {}
        self.prefixes = _Node()
        self.patterns: Patterns | None = None
        self.places: list[list[Rule]] = []
        """Those of `patterns`, by their numbers."""

    def add(self, rule: Rule) -> None:
        if rule.pattern:
            self.expressions.setdefault(rule.pattern.pattern, []).append(rule)
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

    def close(self) -> list[Rule]:
        """All rules are there, in order of rank. Those for whose expressions there is no room."""
        left_out: list[Rule] = []
        for path, rules in self.exact.items():
            self.exact[path] = _ready(rules)
        for node in self._nodes():
            node.rules = _ready(node.rules)
        if self.expressions:
            self.places = [_ready(rules) for rules in self.expressions.values()]
            self.patterns = Patterns([rules[0].pattern for rules in self.places])
            left_out += (rule for number in self.patterns.left_out for rule in self.places[number])
        return left_out

    @property
    def crowded(self) -> bool:
        """Whether anywhere there are many rules."""
        places = chain(self.exact.values(), self.places, (node.rules for node in self._nodes()))
        return any(isinstance(rules, _Crowd) for rules in places)

    def collect(self, path: str, found: list[list[Rule]], spent: int) -> int:
        """Add the lists of rules whose path fits, each in order of rank. How many instructions of expressions the path
        is tried with, those included that were `spent` on other hosts.

        Raises:
            TooMuchWork: those are too many for the path.
        """
        if rules := self.exact.get(path):
            found.append(rules)
        if self.patterns:
            numbers, spent = self.patterns.matching(path, spent)
            found += [self.places[number] for number in numbers]
        node = self.prefixes
        if node.rules:
            found.append(node.rules)
        for segment in path.split("/")[1:]:
            deeper = node.children.get(segment)
            if deeper is None:
                break
            node = deeper
            if node.rules:
                found.append(node.rules)
        return spent

    def dismantle(self) -> None:
        self.exact.clear()
        self.expressions.clear()
        if self.patterns:
            self.patterns.dismantle()
        self.places.clear()
        for node in self._nodes():
            node.children.clear()
            node.rules = []

    def _nodes(self) -> Iterator[_Node]:
        nodes = [self.prefixes]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            yield node


class _Hosts:
    """The rules of one tenant, found by host. `anywhere` are those of routes without hosts."""

    __slots__ = ("anywhere", "crowded", "exact", "rules", "wildcard")

    def __init__(self) -> None:
        self.exact: dict[str, _Paths] = {}
        self.wildcard: dict[str, _Paths] = {}
        self.anywhere = _Paths()
        self.rules: list[Rule] = []
        self.crowded = False

    def add(self, rule: Rule) -> None:
        self.rules.append(rule)
        self.of(rule).add(rule)

    def of(self, rule: Rule) -> _Paths:
        """Those of the rule's host."""
        if rule.host.startswith("*."):
            return self.wildcard.setdefault(rule.host[2:], _Paths())
        return self.exact.setdefault(rule.host, _Paths()) if rule.host else self.anywhere

    def collect(self, host: str, path: str) -> list[list[Rule]]:
        """The lists of rules whose host and path fit.

        Raises:
            Problem: uri_too_long.
        """
        found: list[list[Rule]] = []
        spent = 0
        try:
            for paths in self.fitting(host):
                spent = paths.collect(path, found, spent)
        except TooMuchWork:
            sentence = f"The path of {len(path)} bytes is too long for the many regular expressions of routes here."
            raise Problem("uri_too_long", sentence) from None
        return found

    def fitting(self, host: str) -> list[_Paths]:
        """Those of rules whose host fits."""
        if not self.exact and not self.wildcard:
            return [self.anywhere]
        found: list[_Paths] = []
        if paths := self.exact.get(host):
            found.append(paths)
        if self.wildcard:
            parent = host.partition(".")[2]
            while parent:
                if paths := self.wildcard.get(parent):
                    found.append(paths)
                parent = parent.partition(".")[2]
        found.append(self.anywhere)
        return found

    def close(self) -> list[Rule]:
        """All rules are there, in order of rank. Those for whose expressions there is no room."""
        left_out: list[Rule] = []
        for paths in self.all():
            left_out += paths.close()
            self.crowded |= paths.crowded
        if without := set(left_out):
            self.rules = [rule for rule in self.rules if rule not in without]
        return left_out

    def all(self) -> Iterator[_Paths]:
        yield self.anywhere
        yield from self.exact.values()
        yield from self.wildcard.values()


class Explained(NamedTuple):
    """What one route has to say about a request."""

    route: str
    takes_it: bool
    sentence: str


class Router:
    """All rules of a table. `skipped` says of which routes there is none, or none on one of their hosts."""

    def __init__(self, table: RoutingTable) -> None:
        self.skipped: list[Skipped] = []
        self._tenants: dict[str, _Hosts] = {}
        rules = [rule for route in table.routes for rule in self._compile(route)]
        for rank, rule in enumerate(_in_order(rules)):
            rule.rank = rank
            self._tenants.setdefault(rule.route.tenant, _Hosts()).add(rule)
        for hosts in self._tenants.values():
            for rule in hosts.close():
                self._skip(rule.route, no_room(rule.host))

    def _compile(self, route: Route) -> list[Rule]:
        try:
            return [Rule(route, host.lower()) for host in dict.fromkeys(route.hosts or ("",))]
        except (ValueError, Problem) as error:  # BadPattern is one
            self._skip(route, str(error))
            return []

    def _skip(self, route: Route, why: str) -> None:
        self.skipped.append(Skipped(route.tenant, route.name, f"Route {route.name} is left out: {why.rstrip('.')}."))

    @property
    def served(self) -> set[int]:
        """The ids of the routes that have a rule."""
        return {rule.route.id for hosts in self._tenants.values() for rule in hosts.rules}

    def dismantle(self) -> None:
        """Let go of all rules, some at a time: a large table that ends at once holds everybody up."""
        for hosts in self._tenants.values():
            for paths in hosts.all():
                paths.dismantle()
            while hosts.rules:
                del hosts.rules[-_AT_A_TIME:]

    def match(self, tenant: str, host: str, method: str, path: str, headers: Headers = (), query: bytes = b"") -> Rule:
        """The rule that takes the request; `path` in normal form, `host` in lower case and without port.

        Raises:
            Problem: route_not_found, method_not_allowed where only the method stands in the way, or uri_too_long.
        """
        found: list[list[Rule]] = []
        if hosts := self._tenants.get(tenant):
            found = hosts.collect(host, path)
            if hosts.crowded:
                found = _narrowed(found, headers, query)
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
        """Every route of the tenant, in order of precedence, with the sentence why it takes the request or not.

        None where the path is too long to be tried.
        """
        hosts = self._tenants.get(tenant)
        if hosts is None:
            return []
        try:
            found = {rule for rules in hosts.collect(host, path) for rule in rules}
        except Problem:
            return []
        winner: Rule | None = None
        with suppress(Problem):
            winner = self.match(tenant, host, method, path, headers, query)
        fitting = hosts.fitting(host)
        verdicts: dict[str, Explained] = {}
        for rule in hosts.rules:
            name = rule.route.name
            if rule is winner:
                verdicts[name] = Explained(name, True, _why(rule))
                continue
            if hosts.of(rule) not in fitting:
                obstacle: str | None = f"Its host is {rule.host}, not {host}."
            elif rule not in found:
                obstacle = f"Its {rule.route.path_type} path {rule.route.path} does not fit {path}."
            else:
                obstacle = _obstacle(rule, method, headers, query)
            if obstacle is not None:
                verdicts.setdefault(name, Explained(name, False, obstacle))
            elif winner is not None and not (name in verdicts and verdicts[name].takes_it):
                # A route with several hosts speaks for the one that came closest.
                verdicts[name] = Explained(name, False, _why_later(rule, winner))
        return list(verdicts.values())


def no_room(host: str) -> str:
    """The sentence why an expression cannot be tried beside others."""
    where = f"on {host}" if host else "on no host of their own"
    return (
        f"There is no room for its regular expression: those {where} that one path may have to be tried against have "
        f"at most {MOST_INSTRUCTIONS:,} instructions of RE2 together. Different texts in front keep them apart."
    )


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


def _why(rule: Rule) -> str:
    host = f" on {rule.host}" if rule.host else ""
    return f"It takes the request: its {rule.route.path_type} path {rule.route.path}{host} fits, and it comes first."


def _obstacle(rule: Rule, method: str, headers: Headers, query: bytes) -> str | None:
    """The first of what `Rule.accepts` asks for that the request has not."""
    if not rule.takes(method):
        return f"It takes {', '.join(sorted(rule.methods))}, not {method}."
    if (name := rule.unmet_header(headers)) is not None:
        return f"It asks for header {name.decode()} with value {rule.headers[name].decode()!r}."
    if (parameter := rule.unmet_parameter(query)) is not None:
        return f"It asks for query parameter {parameter} with value {rule.query[parameter]!r}."
    return None


def _why_later(rule: Rule, winner: Rule) -> str:
    first = next((i for i, (ours, theirs) in enumerate(zip(rule.key, winner.key, strict=True)) if ours != theirs), -1)
    return f"It fits, but {winner.route.name} comes first: it {_PRECEDENCE[first]}."
