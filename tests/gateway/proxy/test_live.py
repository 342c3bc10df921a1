"""What becomes of a table: of one that is wrong in part or whole, and of the one before."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from typing import Any

import msgspec
import pytest

from anumate_integration_service.breaker import BreakerPolicy
from gateway.proxy import heap
from gateway.proxy.live import Compiled
from gateway.proxy.policies import HeaderEdits, Pair, Redirect, Rewrite, Tls
from gateway.proxy.router import Rule
from gateway.proxy.subscriber import Subscriber
from gateway.proxy.table import RateLimit, Route, RoutingTable, Target, Upstream, encode
from tests.conftest import eventually
from tests.gateway.proxy.conftest import World, a_route


def test_a_tenants_bad_route_leaves_anothers_of_the_same_name_alone() -> None:
    bad = Route(1, "api", "acme", (Target("orders", version="nonsense"),))
    good = Route(2, "api", "default", (Target("orders"),))
    compiled = Compiled(encode(RoutingTable(1, (bad, good))))
    assert [route.id for route in compiled.table.routes] == [2]
    assert [(each.tenant, each.name) for each in compiled.skipped] == [("acme", "api")]


async def test_what_cannot_be_read_or_used_of_a_table_is_left_out_and_shown_and_the_rest_serves(world: World) -> None:
    table = msgspec.json.decode(
        encode(
            RoutingTable(
                1,
                routes=(
                    a_route(auth_required=False, rate_limits=("none", "gold")),
                    a_route("odd", id=1),
                    a_route("torn", id=2),
                    a_route("unclear", id=3, path="(" * 100, path_type="regex"),
                    a_route("large", id=4, path="((a{100}){100}){100}", path_type="regex"),
                    a_route("old", id=5, targets=(Target("orders", version="nonsense"),)),
                    a_route("balanced", "mixed", id=6, auth_required=False),
                    a_route("secret", "private", id=7, auth_required=False),
                ),
                upstreams=(
                    Upstream("default", "mixed", concurrent=7),
                    Upstream("default", "private", tls=Tls(certificate="nonsense")),
                    Upstream("default", "fragile", breaker=BreakerPolicy(window_seconds=0)),
                ),
                rate_limits=(
                    RateLimit("default", "none", 0, 1, "key"),
                    RateLimit("default", "gold", 5, 5, "key"),
                    RateLimit("default", "odd", 1, 1, "key"),
                ),
            )
        )
    )
    table["routes"][1]["path_type"] = "glob"
    table["routes"][2] = {"tenant": "default", "name": "torn", "targets": 7}
    table["routes"].append([])
    table["upstreams"][0]["load_balancing"] = "astrology"
    table["rate_limits"][2]["burst"] = "many"
    services = [await world.service(name) for name in ("orders", "mixed", "private")]
    world._publish("routes", msgspec.json.encode(table))
    gateway = await world.gateway()
    for name in ("orders", "mixed", "private"):
        await gateway.knows(name, 1)
    answers = [await gateway.get(path) for path in ("/orders", "/balanced", "/secret", "/odd")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]
    assert answers[0].headers["ratelimit-policy"] == '"gold";q=5;w=1'
    assert [len(service.calls) for service in services] == [1, 1, 1]
    report = gateway.app.guard.report(0.0)
    names = ["odd", "torn", "", "mixed", "odd", "old", "fragile", "unclear", "large", "none", "private"]
    assert [each.name for each in report.skipped] == names
    assert all(each.sentence.endswith(".") for each in report.skipped)
    assert f'worker_skipped{{worker="{report.worker}"}} {len(names)}\n' in (await gateway.get("/-/metrics")).text


async def test_a_route_that_cannot_be_bound_answers_for_itself_alone_and_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not left out: its requests would go to the route behind it, which takes whatever comes."""

    def cors(route: Route) -> Any:
        if route.name == "bad":
            raise RuntimeError("a mistake")

    monkeypatch.setattr("gateway.proxy.live.of_route", cors)
    service = await world.service()
    everything = a_route(path="/", auth_required=False)
    world.publish(everything, a_route("bad", id=1, auth_required=False))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answers = [await gateway.get("/bad"), await gateway.get("/bad")]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(500, "route_unusable")] * 2
    long_way = b"POST /bad HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    assert b'"code":"route_unusable"' in await gateway.raw(long_way)
    assert "mistake" not in answers[0].text
    assert (await gateway.get("/other")).status_code == 200
    assert len(service.calls) == 1
    assert caplog.text.count("Route bad cannot be served: RuntimeError('a mistake')") == 1
    (shown,) = gateway.app.guard.report(0.0).skipped
    assert (shown.tenant, shown.name) == ("default", "bad")
    assert "_skipped{" in (await gateway.get("/-/metrics")).text
    world.publish(everything)
    await gateway.serves(world._revision)
    assert (await gateway.get("/bad")).status_code == 200
    assert not gateway.app.live.skipped


@pytest.mark.parametrize(
    "parts",
    [
        {"response_headers": HeaderEdits(set=(Pair("content-length", "1"),))},
        {"response_headers": HeaderEdits(add=(Pair("x-a", "b\r\ny: z"),))},
        {"request_headers": HeaderEdits(set=(Pair("a b", "c"),))},
        {"request_headers": HeaderEdits(remove=("Transfer-Encoding",))},
        {"redirect": Redirect(302, host="€\r\n")},
        {"rewrite": Rewrite(host="a\r\nb")},
    ],
)
async def test_a_route_that_would_break_a_head_answers_for_itself_alone(world: World, parts: dict[str, Any]) -> None:
    await world.service()
    world.publish(a_route("bad", auth_required=False, **parts), a_route(id=2, auth_required=False))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    answers = [await gateway.get("/bad"), await gateway.get("/orders")]
    assert [answer.status_code for answer in answers] == [500, 200]
    assert answers[0].json()["code"] == "route_unusable"


async def test_an_upstream_whose_breaker_takes_more_memory_than_there_is_spoils_no_other(world: World) -> None:
    await world.service()
    policy = BreakerPolicy(window="count", window_calls=10**14)
    world.publish(a_route(auth_required=False), upstreams=(Upstream("default", "large", breaker=policy),))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get("/orders")).status_code == 200
    (shown,) = gateway.app.guard.report(0.0).skipped
    assert shown.name == "large"


async def test_whatever_compiling_raises_the_old_table_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("gateway.proxy.subscriber.Compiled", fails)
    subscriber = Subscriber(None)  # type: ignore[arg-type]
    subscriber.take(b"{}")
    await subscriber.settled()


ROUTES = (
    Route(1, "plain", "default", (Target("orders"),), path="/plain"),
    Route(2, "exact", "default", (Target("orders"),), path="/exact", path_type="exact", methods=("GET",)),
    Route(3, "pattern", "default", (Target("orders"),), path="/(a|b)", path_type="regex", rewrite=Rewrite(path="/x")),
    Route(4, "prefix", "default", (Target("orders"),), hosts=("*.a.test", "b.test"), rewrite=Rewrite(path="/y")),
    Route(5, "away", "default", path="/away", redirect=Redirect(status=301, path="/z")),
    Route(6, "one", "default", (Target("orders"),), path="/[a-z]+/1", path_type="regex"),
    Route(7, "other", "default", (Target("orders"),), path="/[a-z]+/2", path_type="regex"),
    *(
        Route(
            8 + n, f"{kind}{n}", "default", (Target("orders"),), path="/x", path_type=kind, headers=(Pair("a", str(n)),)
        )
        for kind in ("exact", "prefix", "regex")
        for n in range(10)
    ),
)


def test_a_table_makes_no_cycles_so_it_ends_without_the_collector() -> None:
    compiled = Compiled(encode(RoutingTable(1, ROUTES)))
    routers = weakref.ref(compiled.router)
    gc.collect()
    gc.disable()
    try:
        del compiled
        assert routers() is None
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_router_that_is_taken_apart_knows_no_rule_any_more() -> None:
    before = _count_rules()
    router = Compiled(encode(RoutingTable(1, ROUTES))).router
    assert _count_rules() == before + 6 + 2 + 30
    router.dismantle()
    assert _count_rules() == before


def _count_rules() -> int:
    return sum(type(each) is Rule for each in gc.get_objects())


async def test_the_table_before_is_taken_apart_and_the_next_one_serves(world: World) -> None:
    await world.service()
    world.publish(a_route(auth_required=False))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    before = gateway.app.live.current
    world.publish(a_route(auth_required=False, path="/other"))
    await eventually(lambda: gateway.app.live.current is not before)
    await gateway.app.subscriber.settled()
    assert not any(hosts.rules for hosts in before.router._tenants.values())
    assert (await gateway.get("/other/1")).status_code == 200


def test_what_is_kept_is_left_alone_by_the_collector_which_then_goes_on() -> None:
    before = gc.get_freeze_count()
    with heap.kept():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


KNOT = """
import gc, weakref
from gateway.proxy import heap

class Knot:
    def __init__(self):
        self.itself = self

with heap.kept():
    knot = Knot()
seen = weakref.ref(knot)
del knot
gc.collect()
assert seen() is not None
heap.look_through()
assert seen() is None
"""


def test_cycles_that_end_after_they_were_kept_are_freed_at_the_next_look() -> None:
    # In a process of its own: in this one, it would find what other tests have left.
    subprocess.run([sys.executable, "-c", KNOT], check=True, timeout=60)
