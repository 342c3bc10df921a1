"""Where requests go on to: other paths, other hosts, or another address altogether."""

from __future__ import annotations

from typing import Any

import pytest

from anumate.lib.problem import Problem
from gateway.proxy.paths import read_path
from gateway.proxy.policies import Redirect, Rewrite
from gateway.proxy.rewriting import Rewriting, check_groups
from gateway.proxy.table import RateLimit
from tests.gateway.proxy.conftest import Running, Service, World, a_route


def rewritten(path: str, /, **fields: Any) -> str:
    route = a_route(**fields)
    prefix = route.path.rstrip("/") if route.path_type == "prefix" else route.path
    return Rewriting(route, prefix).path(read_path(path.encode()))


@pytest.mark.parametrize(
    ("prefix", "new", "path", "seen"),
    [
        ("/api", "/v1", "/api/orders/7", "/v1/orders/7"),
        ("/api", "/v1", "/api", "/v1"),
        ("/api", "/v1/", "/api/orders", "/v1/orders"),
        ("/api", "/", "/api/orders", "/orders"),
        ("/api", "/", "/api", "/"),
        ("/", "/v1", "/orders", "/v1/orders"),
        ("/api", "/v1", "/api/%41%2A", "/v1/%41%2A"),
        ("/a/b", "/v1", "/%61/b/c%20d", "/v1/c%20d"),
        ("/api", "/", "/api//evil.example", "/evil.example"),
        ("/a/b", "/v1", "//a///b/c//d", "/v1/c//d"),
    ],
)
def test_a_prefix_is_replaced_by_segments_and_the_rest_stays_as_it_was_spelled(
    prefix: str, new: str, path: str, seen: str
) -> None:
    assert rewritten(path, path=prefix, rewrite=Rewrite(path=new)) == seen


@pytest.mark.parametrize(
    ("prefix", "path", "seen"),
    [
        ("/a", "/a//evil.example", "/evil.example"),
        ("/a", "/a///x//y", "/x//y"),
        ("/a", "/a/", "/"),
        ("/a", "/a", "/"),
        ("/", "//evil.example", "//evil.example"),
    ],
)
def test_what_is_left_of_a_path_begins_with_one_slash(prefix: str, path: str, seen: str) -> None:
    assert rewritten(path, path=prefix) == seen


@pytest.mark.parametrize("path", ["/x../secret", "/x%2e%2E/secret", "/x.", "/x./..b", "/x..;v=1/secret"])
@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/x(.*)", "path_type": "regex", "rewrite": Rewrite(path=r"/public/\1")},
        {"path": "/", "strip_prefix": False, "rewrite": Rewrite(pattern="/x", path="/public/")},
    ],
)
def test_a_group_cannot_make_dot_segments(path: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="dot segments"):
        rewritten(path, **fields)


def test_an_exact_path_is_replaced_whole() -> None:
    assert rewritten("/old", path="/old", path_type="exact", rewrite=Rewrite(path="/new/x")) == "/new/x"


@pytest.mark.parametrize(
    ("new", "seen"), [(r"/users/\1", "/users/7"), (r"/\2/of/\1", "/orders/of/7"), (r"/\g<what>", "/orders")]
)
def test_groups_of_a_routes_expression_are_put_in_place(new: str, seen: str) -> None:
    fields = {"path": r"/u/([0-9]+)/(?P<what>[a-z]+)", "path_type": "regex"}
    assert rewritten("/u/7/orders", **fields, rewrite=Rewrite(path=new)) == seen


def test_a_pattern_of_its_own_replaces_its_first_match() -> None:
    assert rewritten("/api/v2/a/v2", path="/api", rewrite=Rewrite(pattern="/v([0-9])", path=r"/version-\1")) == (
        "/api/version-2/a/v2"
    )


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/%61pi/in%74ernal/x%41", "/public/xA"),  # in normal form, for as it came the rule would not see it
        ("/api/internal/x%41", "/public/x%41"),
        ("/api/in%74ernal/api/internal/x", "/public/api/internal/x"),
    ],
)
def test_no_spelling_of_a_path_gets_round_its_rewriting(path: str, seen: str) -> None:
    assert rewritten(path, path="/api", rewrite=Rewrite(pattern="/api/internal", path="/public")) == seen


@pytest.mark.parametrize("new", [r"/\3", r"/\g<nobody>", r"/\x", r"/\0", r"/\01", r"/\100", r"/\g<²>", r"/\g<>"])
def test_a_group_that_the_pattern_has_not_is_refused(new: str) -> None:
    with pytest.raises(ValueError, match="no group"):
        check_groups("/(a)/(b)", new)


async def test_a_bad_group_leaves_out_its_route_alone(world: World) -> None:
    await world.service()
    world.publish(a_route("bad", path="/(a)", path_type="regex", rewrite=Rewrite(path=r"/\7")), a_route())
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get("/orders")).status_code == 200
    assert (await gateway.get("/a")).status_code == 404


async def test_the_service_sees_the_new_host_and_learns_the_old_one(
    gateway: Running, world: World, service: Service
) -> None:
    world.publish(a_route(rewrite=Rewrite(host="orders.internal:81", path="/v2")))
    await gateway.serves(world._revision)
    await gateway.get("/orders/7?x=1", headers={"Host": "shop.example"})
    call = service.calls[-1]
    assert call.line == "GET /v2/7?x=1 HTTP/1.1"
    assert (call.one("host"), call.one("x-forwarded-host")) == ("orders.internal:81", "shop.example")


@pytest.mark.parametrize(
    ("redirect", "target", "address"),
    [
        (Redirect(308, scheme="https"), "/old/a?b=%20c", "https://shop.example/old/a?b=%20c"),
        (Redirect(301, host="new.example"), "/old/a", "http://new.example/old/a"),
        (Redirect(302, path="/new"), "/old/a/b?c", "http://shop.example:8080/new/a/b?c"),
        (Redirect(307, scheme="https", host="new.example:444", path="/"), "/old", "https://new.example:444/"),
        (Redirect(302, path="/"), "/old//evil.example", "http://shop.example:8080/evil.example"),
        (Redirect(303, path="/new"), "/old//evil.example", "http://shop.example:8080/new//evil.example"),
    ],
)
async def test_a_redirect_is_the_gateways_own_answer_and_needs_no_key_and_no_service(
    world: World, redirect: Redirect, target: str, address: str
) -> None:
    world.publish(a_route("old", targets=(), redirect=redirect))
    gateway = await world.gateway()
    answer = await gateway.get(target, headers={"Host": "shop.example:8080", "X-API-Key": ""})
    assert (answer.status_code, answer.headers["location"], answer.content) == (redirect.status, address, b"")


async def test_a_redirect_counts_at_its_routes_limits(world: World) -> None:
    limits = (RateLimit("default", "one", 0.01, 1, "route"),)
    world.publish(
        a_route("old", targets=(), redirect=Redirect(302, path="/new"), rate_limits=("one",)), rate_limits=limits
    )
    gateway = await world.gateway()
    answers = [await gateway.get("/old") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 429]
    assert answers[0].headers["ratelimit-policy"] == '"one";q=1;w=100'
