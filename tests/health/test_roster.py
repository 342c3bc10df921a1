"""The roster, without a store: a catalogue filled by hand."""

from __future__ import annotations

import threading

from health.plan import Check
from health.roster import Roster
from registry.live.catalog import Catalog
from registry.live.instances import Document, Endpoint, Key
from registry.live.ops import Change, Index, Snapshot

KEY = Key("shop", "orders", "one")
CHECKS = (Check(1, "tcp", 10.0, 5.0), Check(2, "http", 10.0, 5.0))


def test_who_asks_for_an_instances_checks_while_the_plan_is_made_anew_never_finds_it_half_made() -> None:
    catalog = Catalog()
    catalog.replace(Snapshot(Index("e", 0), {}))
    roster = Roster(catalog)
    roster.configure({("shop", "orders"): CHECKS})
    catalog.apply(Change(1, "put", KEY, Document(endpoints={"http": Endpoint("http", "127.0.0.1", 80)})))
    roster.replan()
    assert len(roster.members_of(KEY)) == 2
    over, found = threading.Event(), set[int]()

    def ask() -> None:
        while not over.is_set():
            found.add(len(roster.members_of(KEY)))
            found.add(len(roster.members()))

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(3000):
        roster._hear({("shop", "orders")})
        roster.replan()
    over.set()
    asking.join()
    assert found == {2}
