"""Which route takes a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from anumate.lib.problem import Problem
from gateway.proxy.paths import read_path
from gateway.proxy.policies import Pair
from gateway.proxy.router import Router, Rule
from gateway.proxy.table import Route, RoutingTable, Target
from tests.gateway.proxy.naive_matcher import naive_methods, naive_winner


def route(name: str, path: str = "/", **fields: object) -> Route:
    return Route(id=1, name=name, tenant="default", targets=(Target("orders"),), path=path, **fields)  # type: ignore[arg-type]


def router(*routes: Route) -> Router:
    return Router(RoutingTable(routes=routes))


def taken_by(table: Router, path: str, *, host: str = "h", method: str = "GET", **fields: object) -> str | None:
    try:
        return table.match("default", host, method, path, **fields).route.name  # type: ignore[arg-type]
    except Problem:
        return None


@pytest.mark.parametrize(
    ("path", "fits"),
    [("/v2", True), ("/v2/", True), ("/v2/x", True), ("/v2example", False), ("/", False), ("/v1/v2", False)],
)
@pytest.mark.parametrize("rule", ["/v2", "/v2/"])
def test_a_prefix_matches_by_segment(rule: str, path: str, fits: bool) -> None:
    assert (taken_by(router(route("r", rule)), path) == "r") is fits


def test_the_root_prefix_takes_everything() -> None:
    assert taken_by(router(route("r", "/")), "/any/thing") == "r"


def test_exact_comes_before_pattern_before_longest_prefix() -> None:
    table = router(
        route("short", "/a"),
        route("long", "/a/b"),
        route("pattern", "/a/b/[0-9]+", path_type="regex"),
        route("exact", "/a/b/7", path_type="exact"),
    )
    assert taken_by(table, "/a/b/7") == "exact"
    assert taken_by(table, "/a/b/8") == "pattern"
    assert taken_by(table, "/a/b/x") == "long"
    assert taken_by(table, "/a/x") == "short"
    assert taken_by(table, "/x") is None


def test_priority_beats_every_other_rule() -> None:
    table = router(route("exact", "/a", path_type="exact", hosts=("api.example.com",)), route("wins", "/", priority=1))
    assert taken_by(table, "/a", host="api.example.com") == "wins"


def test_the_most_specific_host_wins() -> None:
    table = router(
        route("any", "/deep/path"),
        route("wild", "/", hosts=("*.example.com",)),
        route("wilder", "/", hosts=("*.eu.example.com",)),
        route("plain", "/", hosts=("api.eu.example.com",)),
    )
    assert taken_by(table, "/deep/path", host="api.eu.example.com") == "plain"
    assert taken_by(table, "/deep/path", host="x.y.eu.example.com") == "wilder"
    assert taken_by(table, "/deep/path", host="x.example.com") == "wild"
    assert taken_by(table, "/deep/path", host="example.com") == "any"


def test_methods_headers_and_query_narrow_and_rank() -> None:
    table = router(
        route("all"),
        route("get", methods=("GET",)),
        route("one", headers=(Pair("X-Canary", "1"),)),
        route("two", headers=(Pair("x-canary", "1"), Pair("x-b", "2"))),
        route("query", query=(Pair("v", "2"),)),
    )
    assert taken_by(table, "/", method="POST") == "all"
    assert taken_by(table, "/") == "get"
    assert taken_by(table, "/", method="POST", headers=[(b"x-canary", b"1")]) == "one"
    assert taken_by(table, "/", method="POST", headers=[(b"x-b", b"2"), (b"x-canary", b"1")]) == "two"
    assert taken_by(table, "/", method="POST", query=b"a=1&v=2") == "query"


def test_the_first_of_repeated_names_counts() -> None:
    table = router(route("r", headers=(Pair("a", "1"),), query=(Pair("q", "1"),)))
    assert taken_by(table, "/", headers=[(b"a", b"1"), (b"a", b"2")], query=b"q=1&q=2") == "r"
    assert taken_by(table, "/", headers=[(b"a", b"2"), (b"a", b"1")], query=b"q=1") is None


def test_the_oldest_of_equals_wins_then_the_first_by_name() -> None:
    assert taken_by(router(route("new", created=2.0), route("old", created=1.0)), "/") == "old"
    assert taken_by(router(route("b"), route("a")), "/") == "a"


def test_it_says_which_methods_would_be_taken() -> None:
    table = router(route("r", "/a", methods=("GET", "PUT")))
    with pytest.raises(Problem) as refusal:
        table.match("default", "h", "POST", "/a")
    assert (refusal.value.code, refusal.value.headers["Allow"]) == ("method_not_allowed", "GET, PUT")


def test_another_tenants_routes_are_not_there() -> None:
    with pytest.raises(Problem):
        router(route("r")).match("acme", "h", "GET", "/")


@pytest.mark.parametrize("path", ["/(", "/a{1001}", "/[b-a]"])
def test_a_bad_route_is_skipped_and_named(path: str) -> None:
    table = router(route("bad", path, path_type="regex"), route("good"))
    assert taken_by(table, "/x") == "good"
    assert table.skipped[0].name == "bad"


def test_a_pattern_made_to_backtrack_costs_no_more_than_its_paths_length() -> None:
    table = router(route("trap", "/(a+)+b", path_type="regex"), route("rest"))
    assert taken_by(table, "/" + "a" * 5000) == "rest"  # a backtracking matcher would never come back


@pytest.mark.parametrize("path", ["/(a)\\1", "/(?=a)", "/(", "/a{5000}"])
def test_a_pattern_without_a_linear_match_is_no_pattern(path: str) -> None:
    table = router(route("bad", path, path_type="regex"))
    assert [each.name for each in table.skipped] == ["bad"]


@pytest.mark.parametrize(
    ("raw", "matched", "forwarded"),
    [
        (b"/a/b", "/a/b", "/a/b"),
        (b"/%61/b", "/a/b", "/%61/b"),
        (b"/a%20b", "/a%20b", "/a%20b"),
        (b"/a%c3%a9", "/a%C3%A9", "/a%c3%a9"),
        (b"/a/./b/../c", "/a/c", "/a/c"),
        (b"/a/%2e%2e/c", "/c", "/c"),
        (b"/../../a", "/a", "/a"),
        (b"/a/..", "/", "/"),
        (b"/a/.", "/a/", "/a/"),
        (b"/.well-known/x", "/.well-known/x", "/.well-known/x"),
        (b"/a//b", "/a/b", "/a//b"),
        (b"//a", "/a", "//a"),
        (b"///", "/", "///"),
        (b"/a//%2E/b//", "/a/b/", "/a//b//"),
        (b"/a//../b", "/a/b", "/a/b"),
        (b"/fetch/https://h/%41", "/fetch/https:/h/A", "/fetch/https://h/%41"),
        (b"/f%fcr/%E9%C3%BC", "/f%FCr/%E9%C3%BC", "/f%fcr/%E9%C3%BC"),
        (b"/%3A%40%7b%25%3f%23", "/:@{%25%3F%23", "/%3A%40%7b%25%3f%23"),
        (b"/x/%2E%2e/%61%c3%a9%3A/.", "/a%C3%A9:/", "/a%c3%a9%3A/"),
    ],
)
def test_a_path_is_matched_in_normal_form_and_forwarded_as_it_came(raw: bytes, matched: str, forwarded: str) -> None:
    assert read_path(raw) == (matched, forwarded)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"*", b"a", b"/a%2Fb", b"/a%2fb", b"/a%5Cb", b"/a\\b", b"/a%00", b"/a\x00", b"/a b", b"/a\x7f"),
        *(b"/a%", b"/a%zz", b"/a/..;/b", b"/a/%2e%2e;/b", b"/a/..%3b/b", b"/\xc3\xa9", b"/a\r\nb", b"/a#b"),
        *(b"/a%c0%afb", b"/a%C0%AFb", b"/%c0%2e%c0%2e/b", b"/%c0%ae%c0%ae/b", b"/a%c1%9cb", b"/a%e0%80%afb"),
        *(b"/a%f0%80%80%afb", b"/a%F8%80%80%80%AFb", b"/a%fc%80%80%80%80%afb"),
    ],
)
def test_a_path_that_servers_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        read_path(raw)
    assert refusal.value.code == "malformed_request"


@pytest.mark.parametrize(
    ("path_type", "path"),
    [
        *(("exact", "/admin/caf%c3%a9:x"), ("exact", "/%61dmin/caf%C3%A9%3ax")),
        *(("prefix", "/admin/caf%c3%a9:x"), ("prefix", "/admin")),
        *(("regex", "/admin/.*"), ("regex", "/adm[i]n/caf%c3%a9%3ax"), ("regex", "/admin/caf%C3%a9:(x|y)")),
    ],
)
@pytest.mark.parametrize(
    "spelled",
    [
        b"/admin/caf%C3%A9:x",
        b"/%61dmin/caf%c3%a9:x",
        b"/adm%69n/caf%c3%A9%3Ax",
        b"/b/..//%2e/../admin/caf%C3%A9%3a%78",
        b"//admin//caf%C3%A9:x",
        b"/.///admin/caf%C3%A9:x",
    ],
)
def test_no_spelling_of_a_path_gets_round_a_rule(path_type: str, path: str, spelled: bytes) -> None:
    rules = router(route("guarded", path, path_type=path_type), route("open", "/"))
    assert rules.match("default", "h", "GET", read_path(spelled).matched).route.name == "guarded"


@given(st.binary(max_size=40))
def test_reading_a_path_refuses_or_answers_a_normal_form(raw: bytes) -> None:
    try:
        path = read_path(b"/" + raw).matched
    except Problem:
        return
    assert read_path(path.encode()).matched == path
    assert not {".", ".."} & set(path.split("/"))
    assert "//" not in path


@pytest.mark.parametrize(
    ("path_type", "prefix", "raw", "seen"),
    [
        ("prefix", "/orders", b"/orders", "/"),
        ("prefix", "/orders", b"/orders/", "/"),
        ("prefix", "/orders", b"/orders/7", "/7"),
        ("prefix", "/orders/", b"/orders/7/", "/7/"),
        ("prefix", "/orders", b"/%6Frders/7%41", "/7%41"),
        ("prefix", "/orders", b"/%6Frders", "/"),
        ("prefix", "/a/b", b"/a/%62/c/d", "/c/d"),
        ("prefix", "/", b"/orders/7", "/orders/7"),
        ("prefix", "/orders", b"/x/../orders/7", "/7"),
        ("prefix", "/orders", b"//orders/7//8", "/7//8"),
        ("prefix", "/orders", b"//%6Frders", "/"),
        ("prefix", "/a/b", b"/a///b//c", "/c"),
        ("exact", "/orders", b"//orders", "/"),
        ("exact", "/orders", b"/orders", "/"),
        ("regex", "/o.*", b"/orders/7", "/orders/7"),
    ],
)
def test_the_service_sees_the_path_without_the_prefix(path_type: str, prefix: str, raw: bytes, seen: str) -> None:
    path = read_path(raw)
    rule = router(route("r", prefix, path_type=path_type)).match("default", "h", "GET", path.matched)
    assert rule.rewriting.path(path) == seen


def test_the_service_sees_the_whole_path_where_the_route_says_so() -> None:
    rule = router(route("r", "/orders", strip_prefix=False)).match("default", "h", "GET", "/orders/7")
    assert rule.rewriting.path(read_path(b"/orders/7")) == "/orders/7"


def test_it_explains_every_route_in_order_of_precedence() -> None:
    table = router(
        route("wide", "/"),
        route("orders", "/orders", hosts=("a.example.com", "b.example.com")),
        route("posts", "/orders", methods=("POST",)),
        route("canary", "/orders", headers=(Pair("x-canary", "1"),)),
        route("other", "/invoices", hosts=("b.example.com",)),
    )
    explained = {e.route: e for e in table.explain("default", "b.example.com", "GET", "/orders/7")}
    assert [name for name, each in explained.items() if each.takes_it] == ["orders"]
    assert "longer path" not in explained["wide"].sentence
    assert explained["wide"].sentence == "It fits, but orders comes first: it names a more specific host."
    assert explained["posts"].sentence == "It takes POST, not GET."
    assert explained["canary"].sentence == "It asks for header x-canary with value '1'."
    assert explained["other"].sentence == "Its prefix path /invoices does not fit /orders/7."


def test_an_unknown_tenant_has_nothing_to_explain() -> None:
    assert router(route("r")).explain("acme", "h", "GET", "/") == []


HOSTS = ["a.test", "b.a.test", "c.b.a.test", "test", "other"]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/7", "/ab", "/ab/7", "/a7", "/b", "/b/a/7", "/7", "/x/yy"]
PAIRS = st.builds(Pair, st.sampled_from(["x-a", "X-B", "x-b", "c"]), st.sampled_from(["1", "2", "3", "a b"]))
ROUTES = st.builds(
    lambda where, **fields: route("", where[1], path_type=where[0], **fields),
    st.one_of(
        st.tuples(st.just("prefix"), st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b/a"])),
        st.tuples(st.just("exact"), st.sampled_from(PATHS)),
        st.tuples(
            st.just("regex"),
            st.sampled_from(
                [
                    *(
                        "/a.*",
                        "/a/[a-z]+",
                        "/a/[^/]+/7",
                        "/[ab]",
                        "/[^/]*",
                        "(?:/a|/b)",
                        "/a/b",
                        "(?i)/A/B",
                        "/ab?",
                        "/a(b|/b)/7",
                    ),
                    *(
                        ".*",
                        ".*7",
                        "/a{1,2}b*/[0-9]",
                        "^/a/b$",
                        "/(a|)",
                        "(/[a-z]+)+/7",
                        "/é?a",
                        "/x/yy",
                        "/a/b|/b",
                        r"/\\w+",
                    ),
                ]
            ),
        ),
    ),
    hosts=st.lists(st.sampled_from(["a.test", "B.a.test", "*.a.test", "*.test", "other"]), max_size=2).map(tuple),
    methods=st.lists(st.sampled_from(["GET", "POST", "PUT"]), max_size=2).map(tuple),
    headers=st.lists(PAIRS, max_size=2).map(tuple),
    query=st.lists(PAIRS, max_size=2).map(tuple),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    created=st.sampled_from([0.0, 1.0, 2.0]),
)
CROWDED = st.builds(
    lambda each, pairs, methods: [
        msgspec.structs.replace(each, headers=headers, query=query, methods=some)
        for headers, query in pairs
        for some in methods
    ],
    ROUTES,
    st.lists(st.tuples(st.lists(PAIRS, max_size=3).map(tuple), st.lists(PAIRS, max_size=2).map(tuple)), max_size=12),
    st.lists(st.lists(st.sampled_from(["GET", "POST", "PUT"]), max_size=2).map(tuple), min_size=1, max_size=3),
)
TABLES = st.builds(
    lambda apart, crowd: [
        msgspec.structs.replace(each, id=number, name=f"r{number}") for number, each in enumerate(apart + crowd)
    ],
    st.lists(ROUTES, max_size=12),
    CROWDED,
)
SENT = st.lists(PAIRS, max_size=4)
REQUESTS = st.tuples(
    st.sampled_from(HOSTS),
    st.sampled_from(["GET", "POST", "DELETE"]),
    st.sampled_from(PATHS),
    SENT.map(lambda pairs: [(pair.name.lower().encode(), pair.value.encode()) for pair in pairs]),
    SENT.map(lambda pairs: urlencode([(pair.name, pair.value) for pair in pairs]).encode()),
)


@settings(max_examples=300, deadline=None)
@given(TABLES, st.lists(REQUESTS, min_size=1, max_size=8))
def test_the_matcher_finds_what_a_naive_one_finds(
    routes: list[Route], requests: list[tuple[str, str, str, list[tuple[bytes, bytes]], bytes]]
) -> None:
    table = router(*routes)
    assert not table.skipped
    for host, method, path, headers, query in requests:
        expected = naive_winner(routes, host, method, path, headers, query)
        found = taken_by(table, path, host=host, method=method, headers=headers, query=query)
        assert found == expected
        if found is None:
            with pytest.raises(Problem) as refusal:
                table.match("default", host, method, path, headers, query)
            allowed = naive_methods(routes, host, path, headers, query)
            assert refusal.value.headers.get("Allow", "") == ", ".join(sorted(allowed))
        explained = table.explain("default", host, method, path, headers, query)
        assert [each.route for each in explained if each.takes_it] == ([found] if found else [])
        assert {each.route for each in explained} == {each.name for each in routes}
        for each in explained:
            alone = naive_winner([by_name(routes, each.route)], host, method, path, headers, query)
            assert each.takes_it or each.sentence.startswith("It fits, but ") == (alone is not None)


def by_name(routes: list[Route], name: str) -> Route:
    return next(route for route in routes if route.name == name)


def thousands(**fields: Callable[[int], object]) -> Router:
    made = ({name: make(n) for name, make in fields.items()} for n in range(2000))
    return router(*(route(f"r{n}", **each) for n, each in enumerate(made)))  # type: ignore[arg-type]


def regex(_: int) -> str:
    return "regex"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The rules and expressions that are looked at one by one."""
    found: list[object] = []

    def told(method: Callable[..., object]) -> Callable[..., object]:
        def call(it: object, *args: object) -> object:
            found.append(it)
            return method(it, *args)

        return call

    monkeypatch.setattr(Rule, "accepts", told(Rule.accepts))
    monkeypatch.setattr(Rule, "conditions_hold", told(Rule.conditions_hold))
    monkeypatch.setattr(re2._Regexp, "fullmatch", told(re2._Regexp.fullmatch))
    return found


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"path": lambda n: f"/r{n}/[0-9]+", "path_type": regex}, {"path": "/r7/1"}),
        ({"path": lambda n: f"/s{n // 60}/[^/]+/r{n % 60}/.*", "path_type": regex}, {"path": "/s0/a/r7/1"}),
        ({"path": lambda n: f"/s{n // 60}/.*x{n % 60}", "path_type": regex}, {"path": "/s0/a/x7"}),
        ({"headers": lambda n: (Pair("X-Shop", str(n)),)}, {"headers": [(b"x-shop", b"7")]}),
        ({"headers": lambda n: (Pair(f"X-{n}", "1"),)}, {"headers": [(b"x-7", b"1")]}),
        (
            {"headers": lambda n: (Pair("X-A", str(n % 50)), Pair("X-B", str(n // 50)))},
            {"headers": [(b"x-a", b"7"), (b"x-b", b"0")]},
        ),
        ({"query": lambda n: (Pair("all", "1"), Pair("shop", str(n)))}, {"query": b"all=1&shop=7"}),
        (
            {"path": lambda _: "/[a-z]", "path_type": regex, "query": lambda n: (Pair("shop", str(n)),)},
            {"path": "/a", "query": b"shop=7"},
        ),
    ],
    ids=["beginning", "segment", "end", "value", "name", "two headers", "query", "same expression"],
)
def test_of_thousands_of_routes_only_few_are_tried(
    fields: dict[str, Any], asked: dict[str, Any], tried: list[object]
) -> None:
    table = thousands(**fields)
    assert taken_by(table, **{"path": "/", **asked}) == "r7"
    assert len(tried) <= 4
    tried.clear()
    assert taken_by(table, asked.get("path", "/"), headers=[(b"x-shop", b"x")], query=b"all=1") in (
        None,
        "r7",
    )
    assert len(tried) <= 4


def large(name: str, begins: str = "/t", **more: Any) -> Route:
    """A third of what one host has room for, and a bit."""
    return route(name, f"{begins}.*(?:x{{700}})?{name}", path_type="regex", **more)


def test_the_last_of_the_routes_for_whose_expressions_a_host_has_no_room_are_left_out_and_named() -> None:
    last = large("new", hosts=("shop.example", "A.example"), created=1.0)
    others = [large(name, hosts=("a.example",)) for name in ("one", "two")]
    table = router(last, *others, large("elsewhere", "/u", hosts=("a.example",)), route("rest"))
    (skipped,) = table.skipped
    assert (skipped.tenant, skipped.name) == ("default", "new")
    assert "left out: There is no room for its regular expression: those on a.example that" in skipped.sentence
    assert taken_by(table, "/t/new", host="a.example") == "rest"
    assert taken_by(table, "/t/two", host="a.example") == "two"
    assert taken_by(table, "/t/new", host="shop.example") == "new"
    told = {each.route: each.sentence for each in table.explain("default", "a.example", "GET", "/t/new")}
    assert told["new"] == "Its host is shop.example, not a.example."


def test_a_path_too_long_for_the_expressions_of_its_hosts_together_is_refused() -> None:
    """Not taken for one that they do not fit: another route may ask for less than theirs."""
    everywhere, here = large("all"), large("here", hosts=("*.example",))
    table = router(everywhere, here, route("rest"))
    path = "/t" + "a" * 1000
    assert taken_by(table, path, host="elsewhere") == "rest"
    for host in ("a.example", "b.example"):
        with pytest.raises(Problem) as refusal:
            table.match("default", host, "GET", path)
        assert (refusal.value.code, refusal.value.status) == ("uri_too_long", 414)
        assert table.explain("default", host, "GET", path) == []
    assert taken_by(table, "/u" + "a" * 7000, host="a.example") == "rest"


def test_of_thousands_of_routes_that_say_the_same_only_the_first_is_tried(tried: list[object]) -> None:
    table = thousands(created=float, methods=lambda n: ("GET", "PUT")[: 1 + n % 2])
    assert taken_by(table, "/", method="PUT") == "r1"
    assert taken_by(table, "/", method="POST") is None
    assert len(set(tried)) == 2
