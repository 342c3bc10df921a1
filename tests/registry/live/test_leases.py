"""Leases against a model that is easy to believe: a dict of when each one lapses. A real Valkey, a clock of our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.live.instances import Document, Key
from registry.live.store import SyncStore, ops

T0 = 1_800_000_000.0
# Fewer than ten: a small tenant's leases are never held.
KEYS = [Key("default", service, str(number)) for service in ("orders", "stock", "users") for number in range(3)]

registers = st.tuples(st.just("register"), st.sampled_from(KEYS), st.integers(5, 40))
beats = st.tuples(st.just("heartbeat"), st.sampled_from(KEYS), st.just(0))
leaves = st.tuples(st.just("deregister"), st.sampled_from(KEYS), st.just(0))
passings = st.tuples(st.just("pass"), st.just(KEYS[0]), st.integers(1, 60))
sweeps = st.tuples(st.just("sweep"), st.just(KEYS[0]), st.integers(1, 4))


@dataclass
class Model:
    """What is expected: until when each lease lasts, and for how many seconds it was asked."""

    ends: dict[Key, float] = field(default_factory=dict)
    ttls: dict[Key, int] = field(default_factory=dict)

    def lapsed(self, now: float) -> set[Key]:
        return {key for key, end in self.ends.items() if end <= now}


def awake(store: redis.Redis, now: float) -> None:
    """Say that lane and sweeper were there all the time, so that no rule about outages holds a lease."""
    for stamp in ("swept", "lane"):
        store.set(f"{ops.PREFIX}{stamp}", round(now * 1000))


def expect_counts(store: redis.Redis, keys: set[Key]) -> None:
    kept: Any = store.hgetall(f"{ops.PREFIX}counts")
    told = {name.decode(): int(number) for name, number in kept.items()}
    services = {key.service for key in keys}
    expected = {"*": len(keys), "default": len(keys), "default/": len(services)}
    expected |= {f"default/{name}": sum(key.service == name for key in keys) for name in services}
    assert {name: number for name, number in told.items() if number} == {n: c for n, c in expected.items() if c}


@given(st.lists(st.one_of(registers, beats, leaves, passings, sweeps), max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_lease_ends_early_none_is_counted_twice_and_none_survives_a_sweep_after_its_end(
    store: redis.Redis, steps: list[tuple[str, Key, int]]
) -> None:
    store.flushall()
    live, model, now = SyncStore(store), Model(), T0
    awake(store, now)
    for what, key, number in steps:
        if what == "pass":
            now += number
            awake(store, now)
        elif what == "register":
            lease = live.register(key, Document(lease_ttl=number), now=now)
            assert lease.expires_at == now + number
            assert (lease.outcome == "created") == (key not in model.ends)
            model.ends[key], model.ttls[key] = now + number, number
        elif what == "heartbeat":
            renewal = live.heartbeat(key, now=now)
            assert (renewal is None) == (key not in model.ends)
            if renewal is not None:
                model.ends[key] = now + model.ttls[key]
                assert renewal.expires_at == model.ends[key]
        elif what == "deregister":
            assert (live.deregister(key, now=now) is None) == (model.ends.pop(key, None) is None)
        else:
            due = model.lapsed(now)
            gone = live.sweep(limit=number, now=now)
            assert len(gone) == len(set(gone)) == min(number, len(due))
            assert set(gone) <= due
            for key in gone:
                del model.ends[key]
        expect_counts(store, set(model.ends))
    due = model.lapsed(now)
    assert set(live.sweep(now=now)) == due
    assert set(live.snapshot().known) == model.ends.keys() - due


def test_counts_that_an_older_version_did_not_keep_are_made_by_the_next_sweep(store: redis.Redis) -> None:
    live = SyncStore(store)
    for key in KEYS:
        live.register(key, Document(lease_ttl=30), now=T0)
    store.delete(f"{ops.PREFIX}counts")
    live.register(Key("default", "late", "a"), Document(lease_ttl=30), now=T0)
    live.sweep(now=T0)
    expect_counts(store, {*KEYS, Key("default", "late", "a")})
