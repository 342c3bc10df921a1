from __future__ import annotations

import pytest
import redis

from anumate.celery import app
from registry.live.instances import Document, Key
from registry.live.store import SyncStore
from registry.services.retention import ABSENT, COUNTERS, KEPT_SECONDS, forget_services

HERE, GONE = Key("acme", "orders", "a"), Key("acme", "stock", "a")
OF_HERE, OF_GONE = b"acme|r1|orders|200", b"acme|r1|stock|200"
OTHERS = (b"acme|||401", b"acme|r2||503", b"other|r1|stock|200", b"not ours")
DAY = 86_400.0


class Passing:
    """Time that passes while lane and sweeper are at work."""

    def __init__(self, client: redis.Redis) -> None:
        self.store = SyncStore(client)
        self.now = 1_000_000.0
        self.beat()

    def beat(self) -> None:
        self.store.stamp(now=self.now)
        self.store.sweep(now=self.now)

    def forget(self, *, after: float) -> int:
        """The task's run, so many seconds later."""
        self.now += after
        self.store.redis.set("anumate:{r}:swept", round(self.now * 1000))
        self.store.redis.set("anumate:{r}:lane", round(self.now * 1000))
        return forget_services(self.store.redis, now=self.now)


@pytest.fixture
def time(store: redis.Redis) -> Passing:
    passing = Passing(store)
    for key in (HERE, GONE, Key("other", "stock", "a")):
        passing.store.register(key, Document(lease_ttl=60), now=passing.now)
    for field in (OF_HERE, OF_HERE + b"|sum", OF_GONE, OF_GONE + b"|sum", OF_GONE + b"|le|0.001", *OTHERS):
        store.hset(COUNTERS, field, 1)
    return passing


def test_the_counters_of_a_service_end_a_week_after_its_last_instance(time: Passing, store: redis.Redis) -> None:
    assert time.forget(after=100) == 0
    time.store.deregister(GONE, now=time.now)
    assert time.forget(after=DAY) == 0
    assert time.forget(after=KEPT_SECONDS - 1) == 0
    assert store.hexists(COUNTERS, OF_GONE.decode())
    assert time.forget(after=2) == 1
    assert set(store.hkeys(COUNTERS)) == {OF_HERE, OF_HERE + b"|sum", *OTHERS}
    assert not store.exists(ABSENT)


def test_a_service_that_comes_back_within_the_week_starts_the_week_anew(time: Passing, store: redis.Redis) -> None:
    time.store.deregister(GONE, now=time.now)
    assert time.forget(after=100) == 0
    time.store.register(GONE, Document(), now=time.now)
    assert time.forget(after=6 * DAY) == 0
    time.store.deregister(GONE, now=time.now)
    assert time.forget(after=2 * DAY) == 0
    assert time.forget(after=6 * DAY) == 0
    assert store.hexists(COUNTERS, OF_GONE.decode())
    assert time.forget(after=2 * DAY) == 1


def test_nothing_is_forgotten_while_instances_may_still_come_back(time: Passing, store: redis.Redis) -> None:
    time.store.deregister(GONE, now=time.now)
    time.forget(after=100)
    time.now += 2 * KEPT_SECONDS
    assert forget_services(store, now=time.now) == 0  # nobody looked after the store all that time
    time.beat()
    assert forget_services(store, now=time.now) == 0
    assert store.hexists(COUNTERS, OF_GONE.decode())


def test_beat_has_it_done() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= app.tasks.keys()
    assert "registry.tasks.forget" in app.tasks
