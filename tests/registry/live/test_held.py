"""Many leases of a tenant that lapse at once are held. A real Valkey, a clock of our own."""

from __future__ import annotations

from collections import Counter

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.live.instances import Document, Key
from registry.live.store import SyncStore
from tests.registry.live.test_leases import T0, awake

TTL = 30
HOLD = 600


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    awake(store, T0)
    return SyncStore(store)


def register(live: SyncStore, tenant: str = "default", **services: int) -> list[Key]:
    keys = [Key(tenant, service, f"{n:03}") for service, count in services.items() for n in range(count)]
    for key in keys:
        live.register(key, Document(lease_ttl=TTL), now=T0)
    return keys


def sweep(live: SyncStore, now: float) -> list[Key]:
    """A sweep after a night in which lane and sweeper were always there."""
    awake(live.redis, now)
    return live.sweep(now=now)


def here(live: SyncStore) -> Counter[str]:
    return Counter(key.service for key in live.members().instances)


def held(live: SyncStore) -> set[Key]:
    return {key for key, known in live.snapshot().known.items() if "held" in known.facts}


def test_of_a_crowd_fifteen_in_a_hundred_end_and_the_others_are_held(live: SyncStore) -> None:
    register(live, orders=100)
    gone = sweep(live, T0 + TTL)
    assert len(gone) == 15
    assert len(held(live)) == 85 == here(live)["orders"]
    assert sweep(live, T0 + TTL + 1) == sweep(live, T0 + TTL + HOLD - 1) == []


def test_a_held_instance_says_why_and_until_when(live: SyncStore) -> None:
    register(live, orders=20)
    sweep(live, T0 + TTL)
    fact = next(known.facts["held"] for known in live.snapshot().known.values())
    assert (fact.value, fact.since, fact.expires_at) == ("held", T0 + TTL, T0 + TTL + HOLD)
    assert fact.sentence.startswith("More than 15 % of the leases of this tenant lapsed within a minute")


def test_no_service_is_gone_before_others_have_lost_any(live: SyncStore) -> None:
    register(live, aaa=1, orders=60, zzz=2)
    assert len(sweep(live, T0 + TTL)) == 63 - int(63 * 0.85)
    assert here(live) == {"aaa": 1, "orders": 50, "zzz": 2}


def test_a_crowd_that_comes_second_by_second_is_one_crowd(live: SyncStore) -> None:
    keys = register(live, orders=100)
    for second, key in enumerate(keys):
        live.heartbeat(key, now=T0 + second / 10)
    gone = [key for second in range(12) for key in sweep(live, T0 + TTL + second)]
    assert (len(gone), len(held(live))) == (15, 85)


def test_the_next_minute_has_a_share_of_its_own(live: SyncStore) -> None:
    keys = register(live, orders=100)
    for key in keys[15:]:
        live.heartbeat(key, now=T0 + 20)
    assert len(sweep(live, T0 + TTL)) == 15
    for key in keys[25:]:
        live.heartbeat(key, now=T0 + 60)
    assert sweep(live, T0 + TTL + 59) == []
    assert len(held(live)) == 10
    for key in keys[25:]:
        live.heartbeat(key, now=T0 + TTL + 59)
    assert len(sweep(live, T0 + 2 * TTL + 59)) == 85 - int(85 * 0.85)


def test_a_tenant_of_fewer_than_ten_is_not_protected(live: SyncStore) -> None:
    small = register(live, tenant="small", orders=9)
    register(live, tenant="other", orders=10)
    gone = sweep(live, T0 + TTL)
    assert {key for key in gone if key.tenant == "small"} == set(small)
    assert sum(key.tenant == "other" for key in gone) == 2


def test_whoever_renews_is_held_no_longer(live: SyncStore) -> None:
    register(live, orders=20)
    sweep(live, T0 + TTL)
    first, second, *others = sorted(held(live))
    live.heartbeat(first, now=T0 + TTL + 5)
    live.register(second, Document(lease_ttl=TTL), now=T0 + TTL + 5)
    assert held(live) == set(others)
    assert set(sweep(live, T0 + 2 * TTL + 5)) <= {first, second}


def test_a_hold_ends_by_itself_after_ten_minutes(live: SyncStore) -> None:
    register(live, orders=40)
    sweep(live, T0 + TTL)
    expected = held(live)
    assert set(sweep(live, T0 + TTL + HOLD)) == expected
    assert live.snapshot().known == {}


def test_a_release_ends_at_the_next_sweep_what_has_not_renewed_by_then(live: SyncStore) -> None:
    register(live, orders=20, stock=20)
    sweep(live, T0 + TTL)
    of_orders = sorted(key for key in held(live) if key.service == "orders")
    assert live.release("default", "orders", now=T0 + TTL + 1) == len(of_orders)
    assert live.release("acme", now=T0 + TTL + 1) == 0
    live.heartbeat(of_orders[0], now=T0 + TTL + 1)
    assert set(sweep(live, T0 + TTL + 2)) == set(of_orders[1:])
    left = len(held(live))
    assert live.release("default", now=T0 + TTL + 2) == left == here(live)["stock"]


def test_it_does_not_matter_how_many_sweep(live: SyncStore) -> None:
    register(live, orders=100)
    awake(live.redis, T0 + TTL)
    gone = [key for _ in range(10) for key in live.sweep(limit=4, now=T0 + TTL)]
    assert (len(gone), len(set(gone)), len(held(live))) == (15, 15, 85)


def test_leases_that_an_outage_prolonged_are_not_held_but_renewed_or_ended(live: SyncStore) -> None:
    register(live, orders=9)
    back = T0 + 3600
    live.stamp(now=back)
    assert live.sweep(now=back) == []
    assert sweep(live, back + TTL - 1) == []
    assert len(sweep(live, back + TTL)) == 9


steps = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 45)),
    st.tuples(st.just("renew"), st.integers(1, 5)),
    st.tuples(st.just("release"), st.just(0)),
)


@given(st.integers(10, 30), st.integers(1, 6), st.lists(steps, max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_more_than_the_share_ends_in_a_minute_and_no_hold_lasts_longer_than_ten(
    store: redis.Redis, orders: int, stock: int, steps: list[tuple[str, int]]
) -> None:
    store.flushall()
    live, now = SyncStore(store), T0
    awake(store, now)
    keys = register(live, orders=orders, stock=stock)
    seen, lately = dict.fromkeys(keys, T0), list[float]()
    for what, number in steps:
        here, before = set(live.members().instances), held(live)
        if what == "renew":
            for key in sorted(here)[::number]:
                live.heartbeat(key, now=now)
                seen[key] = now
            assert not {key for key in held(live) if seen[key] == now}
        elif what == "release":
            assert live.release("default", now=now) == len(before)
            assert set(sweep(live, now)) >= before
        else:
            now += number
            ended = [key for key in sweep(live, now) if key not in before]
            assert all(now - seen[key] >= TTL for key in ended)
            lately = [at for at in lately if at > now - 60] + [now] * len(ended)
            # Two windows may meet in one minute.
            if len(here) >= 10:
                assert len(lately) <= 2 * (orders + stock - int((orders + stock) * 0.85))
    sweep(live, now + TTL)
    sweep(live, now + TTL + HOLD)
    assert live.members().instances == []
