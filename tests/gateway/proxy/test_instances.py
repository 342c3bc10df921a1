"""Which instance a request reaches: near ones, warm ones, its own one, and not those that fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from anumate.lib.clock import ManualClock
from gateway.proxy.balancer import Balancer, Group, wanted_by
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.outlier import Outliers
from gateway.proxy.policies import Address, Hedge, Outlier, Pair, Retry, Sticky
from gateway.proxy.rendezvous import digest, favourite
from gateway.proxy.table import Target, Upstream
from gateway.proxy.upstream import Pool
from registry.live.catalog import Catalog
from registry.live.instances import Document, Fact, Instance, Key
from registry.live.instances import Endpoint as Place
from tests.conftest import eventually
from tests.gateway.proxy.conftest import Call, Handler, Running, Service, World, a_route

SERVICE = ("default", "orders")


class Known:
    """A catalogue that a test writes."""

    def __init__(self, *instances: Instance) -> None:
        self.listed = instances

    def instances(self, tenant: str, service: str) -> tuple[Instance, ...]:
        return self.listed


def an_instance(id: str, health: str = "healthy", registered_at: float = 0.0, **document: Any) -> Instance:
    place = Document(endpoints={"http": Place("http", "127.0.0.1", 1)}, **document)
    return Instance(Key("default", "orders", id), place, registered_at, {"probe": Fact(health)})


def bound(known: Known, upstream: Upstream | None = None, **options: Any) -> tuple[Balancer, Group]:
    balancer = Balancer(cast(Catalog, known), options.pop("random", lambda: 0.5), **options)
    balancer.adopt([upstream or Upstream(*SERVICE)], wanted_by([a_route()]))
    ((group, _),) = balancer.shares("default", (Target("orders"),))
    return balancer, group


def ids(group: Group) -> list[str]:
    return sorted(endpoint.id for endpoint in group.endpoints)


@pytest.mark.parametrize(
    ("use", "zones", "chosen"),
    [
        ("prefer", ("a", "b", "a"), ["0", "2"]),
        ("prefer", ("b", "b", "c"), ["0", "1", "2"]),
        ("strict", ("b", "a", "c"), ["1"]),
        ("strict", ("b", "b", "c"), []),
        ("off", ("a", "b", "c"), ["0", "1", "2"]),
    ],
)
def test_instances_nearby_come_first_where_the_service_wants_that(
    use: Any, zones: tuple[str, ...], chosen: list[str]
) -> None:
    known = Known(*(an_instance(str(number), zone=zone) for number, zone in enumerate(zones)))
    _, group = bound(known, Upstream(*SERVICE, zone=use), zone="a")
    assert ids(group) == chosen


def test_when_too_few_are_well_all_that_are_meant_to_serve_are_used() -> None:
    known = Known(an_instance("a"), *(an_instance(id, "unhealthy") for id in "bcd"))
    assert ids(bound(known, Upstream(*SERVICE, panic_threshold=0.5))[1]) == ["a", "b", "c", "d"]
    assert ids(bound(known, Upstream(*SERVICE, panic_threshold=0.25))[1]) == ["a"]
    assert ids(bound(known)[1]) == ["a"]


def test_a_new_instance_gets_its_share_little_by_little() -> None:
    wall, clock = ManualClock(), ManualClock()
    known = Known(an_instance("old"))
    chance = [0.0]
    upstream = Upstream(*SERVICE, slow_start_seconds=100.0)
    wall.advance(1000.0)
    balancer, group = bound(known, upstream, wall=wall, monotonic=clock, random=lambda: chance[0])
    known.listed = (*known.listed, an_instance("new", registered_at=wall()))
    balancer.refresh([SERVICE])

    def shares(draw: float) -> Counter[str]:
        chance[0] = draw
        picked = (balancer.pick(((group, 1),), clock(), "") for _ in range(20))
        return Counter(endpoint.id for endpoint in picked if endpoint)

    clock.advance(50.0)
    assert shares(0.49) == {"old": 10, "new": 10}  # within the half that it may have by now
    assert shares(0.51) == {"old": 20}
    clock.advance(50.0)
    assert shares(0.99) == {"old": 10, "new": 10}


def test_who_has_been_there_for_long_starts_warm_with_a_new_worker() -> None:
    wall, clock = ManualClock(), ManualClock()
    wall.advance(1000.0)
    known = Known(an_instance("a"), an_instance("b", registered_at=wall() - 10.0))
    _, group = bound(known, Upstream(*SERVICE, slow_start_seconds=100.0), wall=wall, monotonic=clock)
    assert {endpoint.id: round(endpoint.warmth(clock()), 2) for endpoint in group.endpoints} == {"a": 1.0, "b": 0.1}


def test_each_subject_has_its_own_instance_and_only_the_lost_ones_move() -> None:
    members = [Endpoint("orders", f"i{number}", 1, Pool("127.0.0.1", 1)) for number in range(10)]
    subjects = [digest(f"caller {number}") for number in range(5000)]
    before = {subject: favourite(members, subject).id for subject in subjects}
    after = {subject: favourite(members[1:], subject).id for subject in subjects}
    assert all(before[subject] in ("i0", after[subject]) for subject in subjects)
    assert all(400 < count < 600 for count in Counter(before.values()).values())


def test_a_heavier_instance_has_more_subjects() -> None:
    members = [Endpoint("orders", id, weight, Pool("127.0.0.1", 1)) for id, weight in (("a", 3), ("b", 1))]
    found = Counter(favourite(members, digest(f"caller {number}")).id for number in range(4000))
    assert 2850 < found["a"] < 3150


def test_a_failing_instance_is_left_out_longer_each_time_and_forgiven_in_time() -> None:
    outliers = Outliers(Outlier(consecutive_failures=3, base_seconds=10.0, max_seconds=25.0))
    members = [Endpoint("orders", id, 1, Pool("127.0.0.1", 1)) for id in "abcd"]
    for member in members:
        member.outliers = outliers
    outliers.members = members
    bad = members[0]

    def fails(now: float) -> float:
        for _ in range(3):
            bad.observed(now, 0.1, True)
        return bad.rests_until - now

    bad.observed(1.0, 0.1, True)
    bad.observed(1.0, 0.1, True)
    bad.observed(1.0, 0.1, False)
    bad.served()
    bad.observed(1.0, 0.1, True)
    assert bad.rests_until == 0.0
    bad.failed_in_a_row = 0
    assert [fails(100.0), fails(110.0), fails(130.0)] == [10.0, 20.0, 25.0]
    assert fails(1000.0) == 10.0


def test_no_more_than_a_share_of_a_service_is_left_out() -> None:
    outliers = Outliers(Outlier(consecutive_failures=1, max_share=0.5))
    members = [Endpoint("orders", id, 1, Pool("127.0.0.1", 1)) for id in "abcde"]
    outliers.members = members
    for member in members:
        member.outliers = outliers
        member.observed(10.0, 0.1, True)
    assert [member.id for member in members if member.rests_until > 10.0] == ["a", "b"]


async def test_callers_stay_with_their_instance_as_long_as_it_is_there(world: World) -> None:
    services = {id: await world.service("orders", id) for id in "abc"}
    world.publish(a_route(), upstreams=(Upstream(*SERVICE, sticky=Sticky("cookie:session")),))
    gateway = await world.gateway()
    await gateway.knows("orders", 3)

    async def who(session: str) -> str:
        before = {id: len(service.calls) for id, service in services.items()}
        assert (await gateway.get(headers={"Cookie": f"x=y; session={session}"})).status_code == 200
        (found,) = [id for id, service in services.items() if len(service.calls) > before[id]]
        return found

    homes = {f"s{number}": await who(f"s{number}") for number in range(12)}
    assert set(homes.values()) == {"a", "b", "c"}
    assert {session: await who(session) for session in homes} == homes
    await services["a"].stop()
    moved = {session: await who(session) for session in homes}
    assert all(moved[session] == home or home == "a" for session, home in homes.items())
    assert "a" not in moved.values()


async def test_an_instance_that_only_fails_is_left_alone_though_its_service_is_well(world: World) -> None:
    bad, good = await world.service("orders", "bad"), await world.service("orders", "good")
    bad.answers(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
    world.publish(a_route(), upstreams=(Upstream(*SERVICE, outlier=Outlier(consecutive_failures=3)),))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    statuses = [(await gateway.get()).status_code for _ in range(30)]
    assert statuses.count(500) == 3
    assert len(bad.calls) == 3
    assert len(good.calls) == 27
    (left_out,) = gateway.app.guard.report(0.0).left_out
    assert (left_out.service, left_out.instance, left_out.reason) == ("orders", "bad", "3 requests in a row failed.")
    assert 25 < left_out.seconds <= 30


async def test_a_service_may_stand_at_addresses_of_its_own(world: World) -> None:
    service = await Service().start()
    world.services.append(service)
    places = (Address("127.0.0.1", service.port),)
    world.publish(a_route(), upstreams=(Upstream(*SERVICE, addresses=places),))
    gateway = await world.gateway()
    await gateway.knows("orders", 1)
    assert (await gateway.get()).status_code == 200
    assert gateway.app.balancer.pick(gateway.app.live.current.bindings[a_route().id].shares, 0.0, "") is not None
    world.publish(a_route())
    await gateway.serves(world._revision)
    assert (await gateway.get()).status_code == 503


async def hedged(world: World, **fields: Any) -> tuple[Running, Service, Service, asyncio.Event]:
    """Of two instances, the one asked first keeps silent until the event."""
    services = [await world.service("orders", id) for id in "ab"]
    world.publish(a_route(hedge=Hedge(after=0.05), **fields))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    go = asyncio.Event()

    async def silent_if_first(call: Call) -> None:
        await call.read_body()
        if sum(len(service.calls) for service in services) == 1:
            await go.wait()
        await call.answer()

    for service in services:
        service.handler = silent_if_first
    return gateway, services[0], services[1], go


async def test_a_request_that_waits_is_tried_beside_and_the_first_answer_wins(world: World) -> None:
    gateway, first, second, go = await hedged(world)
    assert (await gateway.client.put("/orders", content=b"some")).status_code == 200
    assert [call.body for call in (*first.calls, *second.calls)] == [b"some", b"some"]
    go.set()
    await eventually(lambda: all(e.in_flight == 0 for e in gateway.app.balancer.endpoints()), what="all to have ended")
    assert (await gateway.get()).status_code == 200


async def test_what_may_not_reach_a_service_twice_is_not_hedged(world: World) -> None:
    gateway, first, second, go = await hedged(world)
    asking = asyncio.create_task(gateway.client.post("/orders", content=b"some"))
    await eventually(lambda: len(first.calls) + len(second.calls) == 1, what="the request to arrive")
    go.set()
    assert (await asking).status_code == 200
    assert len(first.calls) + len(second.calls) == 1


@pytest.mark.parametrize(
    "targets",
    [
        (Target("orders", tags=("old",)), Target("orders", tags=("new",), header=Pair("X-Canary", "yes"))),
        (Target("orders", weight=0, tags=("old",)), Target("orders", version=">=2")),
        (Target("orders", weight=1, version="<2"), Target("orders", weight=1_000_000, version=">=2")),
    ],
)
async def test_a_second_try_stays_with_the_target_that_was_chosen(world: World, targets: tuple[Target, ...]) -> None:
    old = await world.service(id="old", version="1.0", tags=("old",))
    new = [await world.service(id=id, version="2.0", tags=("new",)) for id in "ab"]
    world.publish(a_route(hedge=Hedge(after=0.02, most=3), targets=targets))
    gateway = await world.gateway()
    await gateway.knows("orders", 3)

    async def silent_until_all_were_asked(call: Call) -> None:
        await eventually(lambda: all(service.calls for service in new), what="both to be asked")
        await asyncio.sleep(0.1)  # the third try would come now
        await call.answer()

    for service in new:
        service.handler = silent_until_all_were_asked
    assert (await gateway.get(headers={"X-Canary": "yes"})).status_code == 200
    assert ([len(service.calls) for service in new], len(old.calls)) == ([1, 1], 0)


async def failing_hedge(world: World, last: int, **fields: Any) -> tuple[Running, list[str]]:
    """Of three instances the two that are asked beside each other hang up, that with index `last` later. The names of
    those that were asked come in turn.
    """
    asked: list[str] = []
    services = {id: await world.service("orders", id) for id in "abc"}
    at_random = Upstream("default", "orders", load_balancing="random")
    world.publish(a_route(hedge=Hedge(after=0.02, most=1), **fields), upstreams=(at_random,))
    gateway = await world.gateway()
    await gateway.knows("orders", 3)

    def in_flight() -> int:
        return sum(endpoint.in_flight for endpoint in gateway.app.balancer.endpoints())

    def hanging_up(id: str) -> Handler:
        async def hang_up(call: Call) -> None:
            mine = len(asked)
            asked.append(id)
            if mine >= 2:  # a kept connection that is cut off would have its request sent again
                await call.answer(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                return
            await eventually(lambda: len(asked) == 2, what="two to be asked")
            if mine == last:
                await eventually(lambda: in_flight() == 1, what="the other to have failed")
            call.writer.transport.abort()

        return hang_up

    for id, service in services.items():
        service.handler = hanging_up(id)
    return gateway, asked


@pytest.mark.parametrize("last", [0, 1])
async def test_the_try_that_failed_last_is_the_one_that_is_named(world: World, last: int) -> None:
    gateway, asked = await failing_hedge(world, last, retries=0)
    answer = await gateway.get()
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith(f"Instance orders/{asked[last]}: ")


@pytest.mark.parametrize("last", [0, 1])
async def test_after_hedged_tries_that_failed_another_instance_is_tried(world: World, last: int) -> None:
    gateway, asked = await failing_hedge(world, last, retries=1)
    for _ in range(4):
        asked.clear()
        assert (await gateway.get()).status_code == 204
        assert sorted(asked) == ["a", "b", "c"]


async def test_where_every_instance_is_asked_beside_the_client_gets_whatever_comes_first(world: World) -> None:
    gateway, first, second, go = await hedged(world, retries=2, retry=Retry(on=("status",)))

    async def refuse_if_second(call: Call) -> None:
        if len(first.calls) + len(second.calls) == 1:
            await go.wait()
        await call.answer(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")

    first.handler = second.handler = refuse_if_second
    answer = await gateway.get()
    go.set()
    assert (answer.status_code, answer.text) == (503, "busy")
    assert len(first.calls) == len(second.calls) == 1


async def hedged_at_a_gate(world: World, concurrent: int) -> tuple[Running, list[Service], asyncio.Event]:
    """Two instances of a service that takes so many requests at once; both keep silent until the event."""
    services = [await world.service("orders", id) for id in "ab"]
    world.publish(a_route(hedge=Hedge(after=0.02)), upstreams=(Upstream("default", "orders", concurrent=concurrent),))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)
    go = asyncio.Event()

    async def silent(call: Call) -> None:
        await go.wait()
        await call.answer()

    for service in services:
        service.handler = silent
    return gateway, services, go


async def test_each_try_takes_a_place_at_the_services_gate(world: World) -> None:
    gateway, services, go = await hedged_at_a_gate(world, 2)
    asking = asyncio.create_task(gateway.get())
    await eventually(lambda: all(service.calls for service in services), what="both to be asked")
    refused = await gateway.get()
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    go.set()
    assert (await asking).status_code == 200
    gate = gateway.app.admission.service("default", "orders")
    await eventually(lambda: gate is not None and gate.inside == 0, what="both places to be free")


async def test_no_further_try_is_made_where_the_services_gate_is_full(world: World) -> None:
    gateway, services, go = await hedged_at_a_gate(world, 1)
    asking = asyncio.create_task(gateway.get())
    await eventually(lambda: any(service.calls for service in services), what="the request to arrive")
    asyncio.get_running_loop().call_later(0.1, go.set)  # the second try would come at 0.02
    assert (await asking).status_code == 200
    assert sum(len(service.calls) for service in services) == 1
    assert (await gateway.get()).status_code == 200


async def test_a_try_that_lost_is_over_while_the_winners_answer_still_goes_on(world: World) -> None:
    gateway, services, go = await hedged_at_a_gate(world, 2)

    async def begins(call: Call) -> None:
        await call.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await go.wait()
        await call.answer(b"cd")

    asking = asyncio.create_task(gateway.get())
    await eventually(lambda: any(service.calls for service in services), what="the first try")
    waiting = next(service for service in services if service.calls)
    next(service for service in services if service is not waiting).handler = begins
    gate = gateway.app.admission.service("default", "orders")
    assert gate is not None
    await eventually(lambda: all(service.calls for service in services), what="the second try")
    await eventually(lambda: gate.inside == 1, what="the first try to be given up")
    assert not asking.done()
    go.set()
    assert (await asking).content == b"abcd"


async def test_a_client_that_leaves_ends_all_tries(world: World) -> None:
    services = [await world.service("orders", id) for id in "ab"]
    world.publish(a_route(hedge=Hedge(after=0.05)))
    gateway = await world.gateway()
    await gateway.knows("orders", 2)

    async def silent(call: Call) -> None:
        await call.reader.read()

    for service in services:
        service.handler = silent
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /orders HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n\r\n" % world.key.encode())
    await eventually(lambda: all(service.calls for service in services), what="both to be asked")
    writer.close()
    await eventually(lambda: all(service.open == 0 for service in services), what="both tries to end")
    assert all(endpoint.in_flight == 0 for endpoint in gateway.app.balancer.endpoints())
