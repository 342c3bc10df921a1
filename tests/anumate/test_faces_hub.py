from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from anumate.faces.broadcast import Broadcaster, Poll
from anumate.faces.hub import SEAT_FRAMES, Hub, Remembered, Seat
from anumate.faces.journal import Event
from anumate.faces.picture import Breaker
from anumate.faces.traffic import Totals
from registry.live.instances import Document, Fact, Instance, Key
from tests.conftest import eventually

NOW = 1_000_000.0


class Catalogue:
    """What a hub reads, filled by hand."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Instance]] = {}

    def put(self, service: str, id_: str, health: str = "healthy", **facts: Fact) -> None:
        facts["probe"] = Fact(health, f"It is {health}.", NOW)
        instance = Instance(Key("acme", service, id_), Document(), NOW, facts)
        self.known.setdefault(service, {})[id_] = instance

    def drop(self, service: str, id_: str) -> None:
        del self.known[service][id_]

    def services(self, tenant: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, instances in self.known.items() if instances and tenant == "acme"))

    def instances(self, tenant: str, service: str) -> tuple[Instance, ...]:
        return tuple(self.known.get(service, {}).values()) if tenant == "acme" else ()


def hub_of(*services: str) -> tuple[Hub, Catalogue]:
    catalogue = Catalogue()
    for name in services:
        catalogue.put(name, "a")
    return Hub("acme", catalogue, NOW), catalogue


async def read(seat: Seat) -> dict[str, Any]:
    async with asyncio.timeout(2):
        frame: dict[str, Any] = json.loads(await seat.next())
    return frame


async def test_a_seat_gets_a_snapshot_and_then_what_changes() -> None:
    hub, catalogue = hub_of("orders", "search")
    seat = hub.sit()
    snapshot = await read(seat)
    assert snapshot["type"] == "snapshot"
    assert [each["name"] for each in snapshot["services"]] == ["orders", "search"]
    assert snapshot["summary"]["headline"] == "Everything is up."

    catalogue.put("orders", "a", "unhealthy")
    hub.refresh({"orders"}, NOW + 1)
    change = await read(seat)
    assert (change["type"], change["seq"]) == ("change", snapshot["seq"] + 1)
    assert [each["status"] for each in change["services"]] == ["down"]
    assert change["summary"]["headline"] == "orders is down."
    assert [(each["instance"], each["word"]) for each in change["events"]] == [("a", "unhealthy")]


async def test_news_about_nothing_is_not_sent() -> None:
    hub, _ = hub_of("orders")
    before = hub.seq
    hub.refresh({"orders"}, NOW + 1)
    assert hub.seq == before


async def test_who_reads_too_slowly_gets_a_snapshot_instead_of_a_queue() -> None:
    hub, _ = hub_of("orders")
    seat = hub.sit()
    await read(seat)
    for second in range(SEAT_FRAMES + 1):
        hub.measure({}, {}, None, NOW + second)
    frame = await read(seat)
    assert (frame["type"], frame["seq"]) == ("snapshot", hub.seq)
    hub.measure({}, {}, None, NOW + 60)
    assert (await read(seat))["seq"] == hub.seq


async def test_a_service_whose_last_instance_left_is_empty_not_down_and_stays_on_the_page() -> None:
    hub, catalogue = hub_of("orders")
    seat = hub.sit()
    await read(seat)
    catalogue.drop("orders", "a")
    hub.refresh({"orders"}, NOW + 1)
    change = await read(seat)
    assert [(each["status"], each["sentence"]) for each in change["services"]] == [
        ("empty", "No instance is registered.")
    ]
    assert [each["word"] for each in change["events"]] == ["left"]


async def test_a_service_leaves_the_page_when_its_row_is_gone_too() -> None:
    hub, catalogue = hub_of("orders")
    seat = hub.sit()
    await read(seat)
    catalogue.drop("orders", "a")
    hub.refresh({"orders"}, NOW + 1)
    await read(seat)
    hub.remember(Remembered(services=("orders",)), NOW + 2)
    hub.remember(Remembered(services=()), NOW + 3)
    assert (await read(seat))["gone"] == ["orders"]


async def test_a_service_that_only_the_database_knows_is_shown_as_empty() -> None:
    hub, _ = hub_of("orders")
    hub.remember(Remembered(services=("billing", "orders")), NOW)
    snapshot = await read(hub.sit())
    assert {each["name"]: each["status"] for each in snapshot["services"]} == {"orders": "up", "billing": "empty"}


async def test_the_past_is_taken_from_the_database_once() -> None:
    hub, _ = hub_of("orders")
    past = Remembered(
        ("orders",), (Event(NOW - 5, "bad", "unhealthy", "orders"), Event(NOW - 9, "good", "healthy", "orders"))
    )
    hub.remember(past, NOW)
    hub.remember(past, NOW + 15)
    snapshot = await read(hub.sit())
    assert [each["at"] for each in snapshot["events"]] == [NOW - 9, NOW - 5]


async def test_an_operators_state_ends_on_the_page_when_it_ends() -> None:
    hub, catalogue = hub_of()
    catalogue.put("orders", "a", state=Fact("draining", "", NOW, "maria", NOW + 30))
    hub.refresh({"orders"}, NOW)
    seat = hub.sit()
    assert (await read(seat))["services"][0]["status"] == "paused"
    hub.measure({}, {}, None, NOW + 31)
    assert (await read(seat))["services"][0]["status"] == "up"


async def test_the_beat_carries_traffic_breakers_and_how_old_the_live_state_is() -> None:
    hub, _ = hub_of("orders")
    hub.measure({"orders": Totals(0)}, {}, None, NOW)
    seat = hub.sit()
    await read(seat)
    opened = {"orders": Breaker("orders", "open", "5 calls failed in a row.", NOW)}
    hub.measure({"orders": Totals(40, 10)}, opened, NOW - 3, NOW + 1)
    change = await read(seat)
    assert change["traffic"]["total"][:2] == [40.0, 0.25]
    assert change["point"] == [NOW + 1, 40.0, 10.0]
    assert change["breakers"][0]["state"] == "open"
    assert change["summary"]["breakers"]["open"] == 1
    assert change["stale_since"] == NOW - 3
    hub.measure({"orders": Totals(40, 10)}, opened, None, NOW + 2)
    assert "breakers" not in await read(seat)


class Source:
    """A live state that a test moves by hand."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.stale_since: float | None = None
        self.broken = False
        self.hanging: asyncio.Event | None = None
        self.polls = 0
        self.callbacks: list[Callable[[set[tuple[str, str]]], None]] = []

    def listen(self, callback: Callable[[set[tuple[str, str]]], None]) -> None:
        self.callbacks.append(callback)

    def tell(self, *services: str) -> None:
        for callback in self.callbacks:
            callback({("acme", service) for service in services})

    async def poll(self) -> Poll:
        self.polls += 1
        if self.hanging:
            await self.hanging.wait()
        if self.broken:
            raise ConnectionError("the store is away")
        return Poll({"acme": {"orders": Totals(float(self.polls))}}, {})

    async def remember(self, tenant: str) -> Remembered:
        if self.broken:
            raise ConnectionError("the database is away")
        return Remembered(("orders",))


async def next_with(seat: Seat, name: str) -> dict[str, Any]:
    while name not in (frame := await read(seat)):
        pass
    return frame


async def test_all_pages_of_a_tenant_are_fed_by_one_follower() -> None:
    source = Source()
    source.catalogue.put("orders", "a")
    live = Broadcaster(source)
    one, other = await live.join("acme"), await live.join("acme")
    assert one.hub is other.hub
    await read(one)
    await read(other)
    source.catalogue.put("orders", "a", "unhealthy")
    source.tell("orders")
    for seat in (one, other):
        assert (await next_with(seat, "services"))["services"][0]["status"] == "down"
    live.leave(one)
    assert other.hub.seats == {other}


async def test_a_page_goes_on_while_store_and_database_are_away(caplog: Any) -> None:
    source = Source()
    source.catalogue.put("orders", "a")
    source.broken = True
    live = Broadcaster(source)
    seat = await live.join("acme")
    assert (await read(seat))["summary"]["headline"] == "Everything is up."
    source.stale_since = NOW
    while (await read(seat))["stale_since"] != NOW:
        pass
    await eventually(lambda: source.polls >= 2)
    assert len([each for each in caplog.records if "the store is away" in each.message]) == 1


async def test_a_page_says_since_when_it_is_stale_while_the_store_hangs_and_is_live_when_it_answers() -> None:
    source = Source()
    source.catalogue.put("orders", "a")
    source.hanging = asyncio.Event()
    live = Broadcaster(source)
    seat = await live.join("acme")
    assert (await read(seat))["stale_since"] is None
    source.stale_since = NOW
    # Who comes in now, or comes back because it got impatient, is told at once.
    assert (await read(await live.join("acme")))["stale_since"] == NOW
    while (await read(seat))["stale_since"] != NOW:
        pass
    frames = [await read(seat) for _ in range(2)]
    assert [frame["stale_since"] for frame in frames] == [NOW, NOW]
    assert source.polls == 1
    source.stale_since = None
    source.hanging.set()
    while (await read(seat))["stale_since"] is not None:
        pass


async def test_another_tenants_changes_are_no_news() -> None:
    source = Source()
    source.catalogue.put("orders", "a")
    live = Broadcaster(source)
    seat = await live.join("other")
    assert (await read(seat))["services"] == [
        {"name": "orders", "status": "empty", "sentence": "No instance is registered.", "instances": []}
    ]
    source.tell("orders")
    frame = await read(seat)
    assert "services" not in frame
