"""Warnings about routes that can never match: every one of them is true, as a naive matcher finds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gateway.control.shadows import warnings
from gateway.proxy.policies import Pair, Redirect
from gateway.proxy.table import Route, RoutingTable
from tests.api import api
from tests.gateway.proxy.conftest import a_route
from tests.gateway.proxy.naive_matcher import naive_winner

HOSTS = ("", "a.example", "b.a.example", "*.a.example", "*.example")
PATHS = (
    *(("prefix", path) for path in ("/", "/a", "/a/b", "/ab")),
    *(("exact", path) for path in ("/a", "/a/b", "/b")),
    *(("regex", path) for path in ("/a.*", "/[ab]", "/a/b", "/a/[bc].*", "/a(/b)?", "/a/|/b")),
)
METHODS = ((), ("GET",), ("GET", "POST"), ("POST",))
ASKED = [
    (method, host, path, header, query)
    for method in ("GET", "POST", "PUT")
    for host in ("a.example", "b.a.example", "c.example", "other")
    for path in ("/", "/a", "/a/b", "/a/b/c", "/ab", "/b", "/c")
    for header in ("", "1", "2")
    for query in (b"", b"x=1")
]


def some_route(chance: random.Random, number: int) -> Route:
    kind, path = chance.choice(PATHS)
    return a_route(
        f"r{number}",
        id=number,
        path=path,
        path_type=kind,
        hosts=tuple(host for host in chance.sample(HOSTS, chance.choice([0, 1, 1, 2])) if host),
        methods=chance.choice(METHODS),
        headers=chance.choice([(), (), (Pair("X-H", "1"),)]),
        query=chance.choice([(), (), (Pair("x", "1"),)]),
        priority=chance.choice([0, 0, 0, 1]),
        created=float(chance.randrange(3)),
    )


def requests() -> list[tuple[Any, ...]]:
    return [
        (host, method, path, [(b"x-h", header.encode())] if header else [], query)
        for method, host, path, header, query in ASKED
    ]


def test_no_request_comes_to_a_route_of_which_that_is_said() -> None:
    chance, said = random.Random(7), 0
    for _ in range(300):
        routes = tuple(some_route(chance, number) for number in range(4))
        table = RoutingTable(1, routes)
        sentences = warnings(routes[0], table)
        winners = {naive_winner(routes, *request) for request in requests()} if sentences else set()
        for sentence in sentences:
            said += 1
            if sentence.startswith("No request ever comes to r0"):
                assert "r0" not in winners
            else:
                names = sentence.removeprefix("No request comes to ").partition(" any more")[0].split(", ")
                assert not winners & set(names)
    assert said > 10


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        *(("/a/[0-9]+", True), ("/a/.*", True), ("/(a/b|a/c)", True), ("/a.*", False), ("/a/?", False)),
        *(("/ab/.*", False), ("/a/b|/b", False), ("(?i)/a/b", False), (".*", False)),
    ],
)
def test_a_prefix_before_an_expression_that_only_matches_below_it_is_told(pattern: str, covered: bool) -> None:
    first = a_route("all", id=1, path="/a", priority=1)
    route = a_route("some", id=2, path=pattern, path_type="regex")
    table = RoutingTable(1, (first, route))
    said = ["No request ever comes to some: all comes first and takes all that it could take."]
    assert warnings(route, table) == (said if covered else [])
    said = ["No request comes to some any more: all comes first and takes all of them."]
    assert warnings(first, table) == (said if covered else [])


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        ([("GET",), ("POST",)], "a, b"),
        ([("GET", "PUT"), ("POST", "PUT")], "a, b"),
        ([("GET",), ("PUT",), ("POST", "PUT")], "a, c"),
        ([("GET",), ("PUT",), ("POST",)], "a, c"),
        ([("GET",), ("PUT",)], ""),
        ([("GET",)], ""),
    ],
)
def test_routes_that_take_all_methods_of_another_together_are_told(methods: list[tuple[str, ...]], names: str) -> None:
    named = enumerate(zip("abcd", methods, strict=False))
    first = [a_route(name, id=id, path="/", methods=some) for id, (name, some) in named]
    late = a_route("late", id=8, path="/", methods=("GET", "POST"), created=1.0)
    rest = a_route("rest", id=9, path="/", priority=-1)
    table = RoutingTable(1, (*first, late, rest))
    said = [f"No request ever comes to late: {names} come first and take all that it could take."] if names else []
    assert warnings(late, table) == said
    assert warnings(rest, table) == []


def test_one_route_that_takes_all_is_named_alone() -> None:
    some = [a_route(name, id=id, path="/", methods=(name,)) for id, name in enumerate(("GET", "POST"))]
    both, late = (
        a_route(name, id=id, path="/", methods=("GET", "POST"), created=float(id))
        for id, name in ((3, "both"), (8, "late"))
    )
    (sentence,) = warnings(late, RoutingTable(1, (*some, both, late)))
    assert sentence == "No request ever comes to late: both comes first and takes all that it could take."


def test_ten_thousand_routes_are_judged_quickly_enough_to_save_one() -> None:
    routes = [a_route(f"r{number}", id=number, path=f"/s{number}/v1") for number in range(10_000)]
    routes.append(a_route("late", id=10_000, path="/s77/v1/x", methods=("GET",), priority=-1))
    (sentence,) = warnings(routes[-1], RoutingTable(1, tuple(routes)))
    assert "r77 comes first" in sentence


OTHER = a_route("other", id=2, path="/a/b/c")


@pytest.mark.parametrize(
    ("fields", "endless"),
    [
        ({"path": "/a", "redirect": Redirect(301, path="/a")}, True),
        ({"path": "/a", "redirect": Redirect(301, path="/a/b")}, True),
        ({"path": "/", "redirect": Redirect(302, path="/new")}, True),
        ({"path": "/", "redirect": Redirect(302, path="/a/b/c")}, False),  # that is another's
        ({"path": "/", "redirect": Redirect(302, path="/a/b/c"), "priority": 1}, True),
        ({"path": "/a", "redirect": Redirect(301, path="/b")}, False),
        ({"path": "/a", "redirect": Redirect(301, path="/ab")}, False),
        ({"path": "/a", "path_type": "exact", "redirect": Redirect(301, path="/a")}, True),
        ({"path": "/a", "path_type": "exact", "redirect": Redirect(301, path="/a/")}, False),
        ({"path": "/a.*", "path_type": "regex", "redirect": Redirect(301, path="/ab")}, True),
        ({"path": "/a(.*)", "path_type": "regex", "redirect": Redirect(301, path=r"/a\1")}, False),  # not judged
        ({"path": "/a", "redirect": Redirect(308, scheme="https")}, False),
        ({"path": "/a", "redirect": Redirect(308, host="b.example")}, False),
        ({"path": "/a", "hosts": ("b.example",), "redirect": Redirect(308, host="B.example")}, True),
        ({"path": "/a", "hosts": ("*.example",), "redirect": Redirect(308, host="www.b.example")}, True),
        ({"path": "/a", "hosts": ("b.example",), "redirect": Redirect(308, host="b.example:8443")}, False),
        ({"path": "/a", "hosts": ("a.example", "b.example"), "redirect": Redirect(308, host="b.example")}, True),
        ({"path": "/a", "hosts": ("b.example",), "redirect": Redirect(308, host="c.example", path="/a")}, False),
        ({"path": "/a", "methods": ("POST",), "redirect": Redirect(303, path="/a")}, False),
        ({"path": "/a", "methods": ("POST",), "redirect": Redirect(307, path="/a")}, True),
    ],
)
def test_a_redirect_that_leads_to_itself_is_told(fields: dict[str, Any], endless: bool) -> None:
    route = a_route("old", id=1, targets=(), **fields)
    found = warnings(route, RoutingTable(1, (route, OTHER)))
    assert ("The redirect of old leads to itself, and so never ends." in found) is endless


@pytest.mark.parametrize("path", ["orders/.*", "[a-z]+/x", "(a|b)", "(?i)orders", r"\.x", "^orders", r"\+/x"])
def test_an_expression_that_no_path_begins_like_is_told(path: str) -> None:
    route = a_route("old", id=1, path=path, path_type="regex")
    assert "in front" in "".join(warnings(route, RoutingTable(1, (route,))))


@pytest.mark.parametrize(
    "path", ["/a", ".*", "^/a", "(a|/b)", "a?/b", "[^a].*", r"\b/a", "a*/", ".x", "(?:/a)", "[!-0]x"]
)
def test_an_expression_that_may_match_a_path_is_not(path: str) -> None:
    route = a_route("old", id=1, path=path, path_type="regex")
    assert warnings(route, RoutingTable(1, (route,))) == []


def test_a_route_below_the_gateways_own_addresses_is_told() -> None:
    route = a_route("old", id=1, path="/-/livez")
    assert warnings(route, RoutingTable(1, (route,))) == [
        "No request ever comes to old: what is below /-/ the gateway answers itself."
    ]


def test_a_condition_that_is_given_twice_is_told() -> None:
    headers = (Pair("X-A", "1"), Pair("x-a", "2"), Pair("X-B", "1"), Pair("X-B", "1"))
    route = a_route("old", id=1, headers=headers, query=(Pair("q", "1"), Pair("Q", "2"), Pair("q", "3")))
    assert warnings(route, RoutingTable(1, (route,))) == [
        "old asks for header x-a with different values: only the first, '1', counts.",
        "old asks for query parameter q with different values: only the first, '1', counts.",
    ]


@pytest.mark.django_db
def test_who_saves_such_a_route_is_told() -> None:
    client = api()
    first = client.post("/v1/routes", {"name": "all", "path": "/", "service": "web", "priority": 5})
    assert first.json()["warnings"] == []
    second = client.post("/v1/routes", {"name": "orders", "path": "/orders", "service": "orders"})
    assert second.status_code == 201
    assert second.json()["warnings"] == [
        "No request ever comes to orders: all comes first and takes all that it could take."
    ]
    third = client.patch("/v1/routes/all", {"priority": 6})
    assert third.json()["warnings"] == ["No request comes to orders any more: all comes first and takes all of them."]
    assert client.get("/v1/routes/orders").json()["warnings"] == []


@pytest.mark.django_db
def test_who_names_what_is_not_there_is_told() -> None:
    body = {"name": "orders", "path": "/orders", "service": "orders", "mirror": {"service": "shadow"}}
    made = api().post("/v1/routes", {**body, "auth": {"methods": ["jwt"], "issuers": ["login"]}})
    assert made.json()["warnings"] == [
        "The mirror's service shadow does not exist yet.",
        "Nobody can come with a token of login: there is no such JWT issuer.",
    ]
    again = api().patch("/v1/routes/orders", {"auth": {"methods": ["jwt"]}, "mirror": {}})
    assert again.json()["warnings"] == ["Nobody can come with a token: there is no JWT issuer."]


@pytest.mark.django_db
def test_who_saves_a_redirect_without_end_is_told() -> None:
    body = {"name": "old", "path": "/", "redirect": {"status": 302, "path": "/new"}, "query": []}
    query = [{"name": "q", "value": "1"}, {"name": "q", "value": "2"}]
    assert api().post("/v1/routes", {**body, "query": query}).json()["warnings"] == [
        "old asks for query parameter q with different values: only the first, '1', counts.",
        "The redirect of old leads to itself, and so never ends.",
    ]
