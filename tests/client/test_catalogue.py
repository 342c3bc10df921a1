from __future__ import annotations

import asyncio
from typing import Any

import pytest

from anumate_integration_service.catalogue import MOST_ANSWERS, Catalogue
from anumate_integration_service.changes import Change, Changed, ChangeFeed, Joined, Left
from anumate_integration_service.instances import ServiceInstance


def orders(number: int, **more: Any) -> ServiceInstance:
    return ServiceInstance("orders", f"orders-{number}", **more)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def ids(instances: tuple[ServiceInstance, ...]) -> list[str]:
    return [instance.instance_id for instance in instances]


def test_an_unknown_service_has_no_instances(catalogue: Catalogue) -> None:
    assert catalogue.find("orders", version=">=1") == ()


def test_instances_come_in_the_order_of_their_ids(catalogue: Catalogue) -> None:
    catalogue.replace([orders(2), orders(1), ServiceInstance("mail", "mail-1"), orders(3)])
    assert ids(catalogue.find("orders")) == ["orders-1", "orders-2", "orders-3"]
    assert ids(catalogue.instances) == ["mail-1", "orders-1", "orders-2", "orders-3"]


def test_only_those_that_may_get_traffic_are_known(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1, status="unhealthy"), orders(2, state="draining"), orders(3, status="degraded")])
    assert ids(catalogue.find("orders")) == ["orders-3"]


def test_tags_and_capabilities_must_all_be_there(catalogue: Catalogue) -> None:
    catalogue.replace(
        [
            orders(1, tags=("a", "b"), capabilities=("search",)),
            orders(2, tags=("a",), capabilities=("search", "cache")),
        ]
    )
    assert ids(catalogue.find("orders", tags=("a",))) == ["orders-1", "orders-2"]
    assert ids(catalogue.find("orders", tags=("a", "b"))) == ["orders-1"]
    assert ids(catalogue.find("orders", tags=("a",), capabilities=("search", "cache"))) == ["orders-2"]
    assert catalogue.find("orders", tags=("b",), capabilities=("cache",)) == ()


def test_versions_are_constrained(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1, version="1.9"), orders(2, version="1.10"), orders(3, version="2.0rc1"), orders(4)])
    assert ids(catalogue.find("orders", version=">=1.10,<2")) == ["orders-2"]
    with pytest.raises(ValueError, match="no version constraint"):
        catalogue.find("orders", version="newest")


def test_another_zone_serves_when_the_wanted_one_has_nobody_that_fits(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1, zone="a", version="1"), orders(2, zone="b", version="2")])
    assert ids(catalogue.find("orders", zone="a")) == ["orders-1"]
    assert ids(catalogue.find("orders", zone="a", version=">=2")) == ["orders-2"]
    assert ids(catalogue.find("orders", zone="c")) == ["orders-1", "orders-2"]


def test_an_answer_is_the_same_object_until_it_changes(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1, tags=("a",)), orders(2)])
    tagged, every = catalogue.find("orders", tags=("a",)), catalogue.find("orders")
    assert catalogue.find("orders", tags=["a"]) is tagged  # type: ignore[arg-type]
    assert catalogue.replace([orders(1, tags=("a",)), orders(2), ServiceInstance("mail", "m")]) == {"mail": {"m"}}
    assert catalogue.find("orders") is every
    assert catalogue.replace([orders(1, tags=("a",)), orders(3)]) == {
        "mail": {"m"},
        "orders": {"orders-2", "orders-3"},
    }
    assert catalogue.find("orders", tags=("a",)) is tagged
    assert catalogue.find("orders") is not every
    assert catalogue.find("orders")[0] is every[0]


def test_more_questions_than_are_remembered_are_answered_all_the_same(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1, version="1.5")])
    for number in range(2 * MOST_ANSWERS):
        assert len(catalogue.find("orders", version=f"<=1.{number}")) == (number >= 5)


def watched(catalogue: Catalogue) -> tuple[ChangeFeed, Any]:
    feed = ChangeFeed(lambda: catalogue.by_id("orders"))

    def replace(*instances: ServiceInstance) -> None:
        feed.note(catalogue.replace(instances).get("orders", ()))

    return feed, replace


async def drained(feed: ChangeFeed) -> list[Change]:
    told = []
    while feed._differing:
        told.append(await anext(feed))
    return told


async def test_a_watcher_is_told_who_is_there_and_then_who_joins_changes_and_leaves(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1)])
    feed, replace = watched(catalogue)
    assert await anext(feed) == Joined(orders(1))
    replace(orders(1, version="2"), orders(2))
    assert await drained(feed) == [Changed(orders(1, version="2"), before=orders(1)), Joined(orders(2))]
    replace(orders(2))
    assert await anext(feed) == Left(orders(1, version="2"))


async def test_a_slow_watcher_is_told_the_outcome_and_not_the_way_there(catalogue: Catalogue) -> None:
    catalogue.replace([orders(1)])
    feed, replace = watched(catalogue)
    await anext(feed)
    replace(orders(1, version="2"))
    replace(orders(1, version="3"), orders(2))
    replace(orders(1, version="4"))
    assert await drained(feed) == [Changed(orders(1, version="4"), before=orders(1))]
    replace()
    replace(orders(1, version="4"))
    assert await drained(feed) == []


async def test_churn_that_nobody_reads_takes_no_room(catalogue: Catalogue) -> None:
    feed, replace = watched(catalogue)
    for number in range(1000):
        replace(orders(number))
    assert len(feed._differing) == 1
    assert await drained(feed) == [Joined(orders(999))]


async def test_a_watch_ends_when_it_is_closed_even_for_one_who_waits(catalogue: Catalogue) -> None:
    feed, _ = watched(catalogue)

    async def read() -> list[Change]:
        return [change async for change in feed]

    waiting = asyncio.create_task(read())
    await asyncio.sleep(0)
    feed.close()
    assert await waiting == []
    assert [change async for change in feed] == []
