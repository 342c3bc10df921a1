"""Which route takes a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anumate.lib.problem import Problem
from gateway.proxy.paths import read_path
from gateway.proxy.policies import Pair
from gateway.proxy.router import Router
from gateway.proxy.table import Route, RoutingTable, Target


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
    assert table.skipped[0][0] == "bad"


def test_a_pattern_made_to_backtrack_costs_no_more_than_its_paths_length() -> None:
    table = router(route("trap", "/(a+)+b", path_type="regex"), route("rest"))
    assert taken_by(table, "/" + "a" * 5000) == "rest"  # a backtracking matcher would never come back


@pytest.mark.parametrize("path", ["/(a)\\1", "/(?=a)", "/(", "/a{5000}"])
def test_a_pattern_without_a_linear_match_is_no_pattern(path: str) -> None:
    table = router(route("bad", path, path_type="regex"))
    assert [name for name, _ in table.skipped] == ["bad"]


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


def test_explaining_agrees_with_matching() -> None:
    table = router(route("a", "/a"), route("b", "/a/b", methods=("GET",)), route("c", "/", priority=5, hosts=("x",)))
    for host in ("x", "y"):
        for path in ("/a", "/a/b", "/z"):
            winners = [e.route for e in table.explain("default", host, "GET", path) if e.takes_it]
            assert winners == [name for name in [taken_by(table, path, host=host)] if name]
