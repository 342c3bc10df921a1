from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anumate.lib.clock import ManualClock
from registry.live import catalog as catalog_module
from registry.live.catalog import Catalog, Pair
from registry.live.instances import Document, Fact, Key
from registry.live.ops import Change, Index, Known, Snapshot

A, B = Key("default", "orders", "a"), Key("default", "orders", "b")
SERVICE = Key("default", "orders")
DOCUMENT = Document(version="1.0", lease_ttl=30)


def put(seq: int, key: Key = A, document: Document = DOCUMENT) -> Change:
    return Change(seq, "put", key, document, 100.0)


def gone(seq: int, key: Key = A) -> Change:
    return Change(seq, "gone", key)


def fact(seq: int, kind: str, value: str | None, key: Key = A, **more: Any) -> Change:
    return Change(seq, "fact", key, kind=kind, fact=Fact(value, **more) if value else None)


def snapshot(seq: int, *keys: Key, epoch: str = "e", facts: dict[Key, dict[str, Fact]] | None = None) -> Snapshot:
    known = {key: Known(DOCUMENT, 100.0, (facts or {}).get(key, {})) for key in keys}
    return Snapshot(Index(epoch, seq), known)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalog(clock: ManualClock) -> Catalog:
    catalog = Catalog(clock)
    catalog.replace(snapshot(0))
    return catalog


def ids(catalog: Catalog, service: str = "orders") -> list[str]:
    return [instance.key.id for instance in catalog.instances("default", service)]


def test_what_instances_of_a_service_say_alike_stands_in_memory_once(catalog: Catalog) -> None:
    said = b'{"version":"1.0","tags":["api"],"metadata":{"team":"a team"},"zone":"eu"}'
    catalog.apply(*(put(seq, key, msgspec.json.decode(said, type=Document)) for seq, key in ((1, A), (2, B))))
    other = msgspec.json.decode(said.replace(b"a team", b"b team"), type=Document)
    catalog.apply(put(3, B, other))
    one, two = catalog.instances("default", "orders")
    assert two.document == other
    assert one.document.tags is two.document.tags
    assert one.document.metadata == {"team": "a team"}


def test_facts_that_were_handed_out_never_change(catalog: Catalog) -> None:
    catalog.apply(put(1), fact(2, "probe", "healthy"))
    [before] = catalog.instances("default", "orders")
    catalog.apply(fact(3, "probe", "unhealthy"), fact(4, "reported", "healthy"))
    [now] = catalog.instances("default", "orders")
    assert ({kind: each.value for kind, each in before.facts.items()}, now.health) == (
        {"probe": "healthy"},
        "unhealthy",
    )


def test_instances_come_in_the_order_of_their_ids(catalog: Catalog) -> None:
    catalog.apply(put(1, B), put(2, A))
    assert ids(catalog) == ["a", "b"]
    assert catalog.services("default") == ("orders",)
    assert catalog.index == "e-2"


def test_the_tuple_stays_the_same_until_something_of_the_service_changes(catalog: Catalog) -> None:
    catalog.apply(put(1))
    before = catalog.instances("default", "orders")
    catalog.apply(put(2, Key("default", "stock", "x")), fact(3, "probe", "healthy", Key("other", "orders", "a")))
    assert catalog.instances("default", "orders") is before
    catalog.apply(fact(4, "probe", "healthy"))
    assert catalog.instances("default", "orders") is not before


def test_a_service_without_instances_is_no_longer_listed(catalog: Catalog) -> None:
    catalog.apply(put(1), gone(2))
    assert catalog.services("default") == ()
    assert catalog.tenants() == ()
    assert catalog.instances("default", "orders") == ()
    assert catalog.get(A) is None
    assert catalog.changed_at("default", "orders") == 2


def test_a_service_that_comes_and_goes_leaves_no_name_behind_beyond_the_bound(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "EMPTIES_KEPT", 3)
    for number in range(5):
        key = Key("default", f"s{number}", "a")
        catalog.apply(put(2 * number + 1, key), gone(2 * number + 2, key))
    assert catalog.changed_since("default", 0) == ("s2", "s3", "s4")
    assert catalog.floor("default") == 4
    assert catalog.floor("other") == 0
    # Who waits for one that was forgotten, as of an older index, is told that it may have changed.
    assert catalog.changed_at("default", "s0") == 4


def test_an_empty_service_that_fills_again_is_not_forgotten(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "EMPTIES_KEPT", 1)
    catalog.apply(put(1), gone(2), put(3), put(4, Key("default", "x", "a")), gone(5, Key("default", "x", "a")))
    catalog.absorb(put(8, Key("default", "x", "b")), "e")
    catalog.apply(put(6, Key("default", "y", "a")), gone(7, Key("default", "y", "a")))
    assert catalog.services("default") == ("orders", "x")
    assert ids(catalog) == ["a"]
    assert ids(catalog, "x") == ["b"]
    assert catalog.floor("default") == 0


def test_after_a_restart_it_does_not_claim_to_know_what_changed_before(clock: ManualClock) -> None:
    again = Catalog(clock)
    again.replace(snapshot(7, A))
    assert again.floor("default") == 7
    assert again.changed_at("default") == again.changed_at("default", "stock") == 7


def test_facts_show_on_the_instance_and_a_services_state_on_all_of_its_instances(catalog: Catalog) -> None:
    catalog.apply(put(1, A), put(2, B), fact(3, "probe", "unhealthy"), fact(4, "state", "draining", SERVICE))
    a, b = catalog.instances("default", "orders")
    assert (a.health, b.health) == ("unhealthy", "unknown")
    assert (a.state(0), b.state(0)) == ("draining", "draining")
    assert catalog.service_facts("default", "orders")["state"].value == "draining"
    catalog.apply(fact(5, "state", None, SERVICE))
    assert b.key == B
    assert catalog.instances("default", "orders")[1].state(0) == "enabled"


def test_a_word_about_a_zone_reaches_all_who_are_in_it_and_moves_their_index(catalog: Catalog) -> None:
    zone, heard = Key("default", "", "eu"), list[set[Pair]]()
    here, there = Document(zone="eu"), Document(zone="us")
    catalog.apply(put(1, A, here), put(2, B, there), put(3, Key("default", "mail", "m"), here))
    catalog.listen(heard.append)
    catalog.apply(fact(4, "state", "draining", zone))
    assert heard == [{("default", "orders"), ("default", "mail")}]
    assert [each.state(0) for each in catalog.instances("default", "orders")] == ["draining", "enabled"]
    assert catalog.changed_at("default", "mail") == 4
    catalog.apply(put(5, Key("default", "late", "l"), here))
    assert catalog.instances("default", "late")[0].state(0) == "draining"
    catalog.set_states({zone: Fact("enabled", since=1.0, weight=3)})
    assert {each.weight(0) for each in catalog.instances("default", "mail")} == {3}
    catalog.replace(snapshot(6, A))
    assert catalog.services("default") == ("orders",)


def test_an_operators_word_outlives_the_instance_and_waits_for_it(catalog: Catalog) -> None:
    catalog.apply(put(1), fact(2, "probe", "unhealthy"), fact(3, "state", "maintenance"), gone(4), put(5))
    instance = catalog.get(A)
    assert instance is not None
    assert (instance.health, instance.state(0)) == ("unknown", "maintenance")


def test_states_of_the_database_hold_when_the_store_was_wiped_and_the_later_word_wins(catalog: Catalog) -> None:
    catalog.set_states({A: Fact("draining", since=10.0)})
    catalog.apply(put(1))
    assert catalog.instances("default", "orders")[0].state(0) == "draining"
    catalog.apply(fact(2, "state", "enabled", since=11.0))
    assert catalog.instances("default", "orders")[0].state(0) == "enabled"
    catalog.set_states({A: Fact("maintenance", since=12.0)})
    assert catalog.instances("default", "orders")[0].state(0) == "maintenance"


def test_listeners_hear_once_a_batch_which_pairs_changed(catalog: Catalog) -> None:
    heard: list[set[Pair]] = []
    stop = catalog.listen(heard.append)
    catalog.apply(put(1, A), put(2, B), put(3, Key("acme", "stock", "x")))
    assert heard == [{("default", "orders"), ("acme", "stock")}]
    stop()
    catalog.apply(gone(4))
    assert len(heard) == 1


def test_a_listener_that_fails_disturbs_nobody(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[set[Pair]] = []

    def broken(pairs: set[Pair]) -> None:
        raise RuntimeError

    catalog.listen(broken)
    catalog.listen(heard.append)
    catalog.apply(put(1))
    assert heard
    assert "a listener of the catalogue failed" in caplog.text


def test_an_own_write_shows_at_once_and_older_news_does_not_undo_it(catalog: Catalog) -> None:
    heard: list[set[Pair]] = []
    catalog.listen(heard.append)
    newest = Document(version="3.0")
    catalog.absorb(put(3, A, newest), "e")
    assert catalog.instances("default", "orders")[0].document == newest
    assert heard == []
    catalog.apply(put(1, A, Document(version="1.0")), gone(2))
    assert catalog.instances("default", "orders")[0].document == newest
    catalog.apply(put(3, A, newest))
    assert heard
    catalog.apply(put(4, A, Document(version="4.0")))
    assert catalog.instances("default", "orders")[0].document.version == "4.0"


def test_an_own_write_of_another_epoch_or_of_the_past_is_not_shown(catalog: Catalog) -> None:
    catalog.apply(put(1), gone(2))
    catalog.absorb(put(1), "e")
    catalog.absorb(put(9), "another")
    assert ids(catalog) == []


def test_a_snapshot_replaces_what_is_known_and_keeps_what_is_equal(catalog: Catalog) -> None:
    catalog.apply(put(1, A), put(2, B), put(3, Key("default", "stock", "x")))
    stock = catalog.instances("default", "stock")
    catalog.replace(snapshot(9, A, Key("default", "stock", "x")))
    assert ids(catalog) == ["a"]
    assert catalog.instances("default", "stock") is stock
    assert catalog.changed_at("default", "stock") == 3
    assert catalog.changed_at("default", "orders") == 9


def test_what_a_wiped_store_does_not_hold_stays_for_one_lease_time(catalog: Catalog, clock: ManualClock) -> None:
    catalog.apply(put(1, A), put(2, B), fact(3, "probe", "unhealthy"))
    catalog.replace(snapshot(0, epoch="new"))
    assert ids(catalog) == ["a", "b"]
    clock.advance(20)
    catalog.apply(put(1, A))
    catalog.expire_held()
    assert ids(catalog) == ["a", "b"]
    assert catalog.instances("default", "orders")[0].health == "unhealthy"
    clock.advance(10)
    catalog.expire_held()
    assert ids(catalog) == ["a"]
    assert catalog.instances("default", "orders")[0].health == "unknown"


def test_a_second_snapshot_of_the_wiped_store_does_not_cut_the_grace_short(
    catalog: Catalog, clock: ManualClock
) -> None:
    catalog.apply(put(1, A))
    catalog.replace(snapshot(0, epoch="new"))
    clock.advance(5)
    catalog.replace(snapshot(3, epoch="new"))
    assert ids(catalog) == ["a"]
    clock.advance(25)
    catalog.expire_held()
    assert ids(catalog) == []


def test_it_is_stale_while_the_store_is_away(catalog: Catalog, clock: ManualClock) -> None:
    assert catalog.stale_since is None
    catalog.lost()
    since = catalog.stale_since
    clock.advance(5)
    catalog.lost()
    assert catalog.stale_since == since == clock.now - 5
    catalog.replace(snapshot(0))
    assert catalog.stale_since is None


def test_it_is_stale_since_the_store_was_last_heard(catalog: Catalog, clock: ManualClock) -> None:
    clock.advance(60)
    catalog.heard()
    heard = clock.now
    clock.advance(5)
    catalog.lost()
    assert catalog.stale_since == heard


def test_what_was_dumped_is_there_after_a_restart_and_known_to_be_old(catalog: Catalog, clock: ManualClock) -> None:
    catalog.apply(put(1, A), fact(2, "probe", "unhealthy"), fact(3, "state", "draining", SERVICE))
    dumped, dumped_at = catalog.dump(), clock.now
    clock.advance(60)
    again = Catalog(clock)
    again.load(dumped)
    assert again.index == catalog.index
    assert again.instances("default", "orders") == catalog.instances("default", "orders")
    assert again.stale_since == dumped_at


def test_what_is_no_dump_is_refused(catalog: Catalog) -> None:
    with pytest.raises(msgspec.DecodeError):
        catalog.load(b'{"instances": 3}')


KEYS = st.sampled_from([Key("default", s, i) for s in ("orders", "stock") for i in ("a", "b", "c")])
VERSIONS = st.sampled_from(["1", "2", "3"])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, VERSIONS),
    st.tuples(st.just("gone"), KEYS, VERSIONS),
    st.tuples(st.just("probe"), KEYS, st.sampled_from(["healthy", "unhealthy", None])),
)


def change(seq: int, step: tuple[str, Key, Any]) -> Change:
    op, key, value = step
    if op == "probe":
        return fact(seq, "probe", value, key)
    return put(seq, key, Document(version=value)) if op == "put" else gone(seq, key)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30), st.data())
def test_own_writes_shown_early_never_change_where_the_stream_leads(
    steps: list[tuple[str, Key, Any]], data: st.DataObject
) -> None:
    plain, eager = Catalog(), Catalog()
    for each in (plain, eager):
        each.replace(snapshot(0))
    changes = [change(seq, step) for seq, step in enumerate(steps, start=1)]
    for position, each in enumerate(changes):
        for own in data.draw(st.lists(st.sampled_from(changes[position:]), max_size=2), label="own writes"):
            eager.absorb(own, "e")
        plain.apply(each)
        eager.apply(each)
    for service in ("orders", "stock"):
        assert plain.instances("default", service) == eager.instances("default", service)
    assert plain.services("default") == eager.services("default")
