"""The live state's operations, against a real Valkey; `now` drives the clock."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio as aioredis

from registry.live.instances import Document, Endpoint, Fact, Key
from registry.live.store import AsyncStore, SyncStore, ops

KEY = Key("default", "orders", "a")
DOCUMENT = Document(version="1.0", endpoints={"http": Endpoint("http", "localhost", 8000)}, lease_ttl=30)
T0 = 1_800_000_000.0


@pytest.fixture
def live(store: redis.Redis) -> SyncStore:
    return SyncStore(store)


def alive(live: SyncStore, start: float, end: float) -> list[Key]:
    """Lane and sweeper at work each second from `start` to `end`; answers whose leases ended."""
    gone: list[Key] = []
    for second in range(int(end - start) + 1):
        live.stamp(now=start + second)
        gone += live.sweep(now=start + second)
    return gone


def seq(live: SyncStore) -> int:
    return live.members().index.seq


def test_the_first_registration_creates_and_an_equal_one_only_renews(live: SyncStore) -> None:
    first = live.register(KEY, DOCUMENT, now=T0)
    again = live.register(KEY, DOCUMENT, now=T0 + 10)
    assert (first.outcome, again.outcome) == ("created", "renewed")
    assert (first.expires_at, again.expires_at) == (T0 + 30, T0 + 40)
    assert first.registered_at == again.registered_at == T0
    assert first.index == again.index


def test_a_changed_document_moves_the_index_and_keeps_the_time_of_registration(live: SyncStore) -> None:
    first = live.register(KEY, DOCUMENT, now=T0)
    changed = live.register(KEY, Document(version="2.0"), now=T0 + 10)
    assert (changed.outcome, changed.registered_at) == ("changed", T0)
    assert changed.index.seq == first.index.seq + 1


def test_heartbeats_renew_and_never_move_the_index(live: SyncStore) -> None:
    lease = live.register(KEY, DOCUMENT, now=T0)
    renewal = live.heartbeat(KEY, now=T0 + 20)
    assert renewal is not None
    assert (renewal.lease_ttl, renewal.expires_at, renewal.index) == (30, T0 + 50, lease.index)


def test_a_heartbeat_of_an_unknown_instance_says_register_again(live: SyncStore) -> None:
    assert live.heartbeat(KEY) is None
    assert live.deregister(KEY) is None


def test_it_goes_by_the_clock_of_redis_when_nobody_drives_it(live: SyncStore) -> None:
    seconds, _ = live.redis.time()
    assert abs(live.register(KEY, DOCUMENT).expires_at - seconds - 30) < 2


def test_a_lapsed_lease_ends_and_an_unlapsed_one_does_not(live: SyncStore) -> None:
    alive(live, T0 - 60, T0)
    live.register(KEY, DOCUMENT, now=T0)
    assert alive(live, T0 + 1, T0 + 29) == []
    assert alive(live, T0 + 30, T0 + 30) == [KEY]
    assert live.snapshot().known == {}


def test_nothing_ends_before_the_store_has_been_back_for_one_lease_time(live: SyncStore) -> None:
    alive(live, T0 - 60, T0)
    live.register(KEY, DOCUMENT, now=T0)
    back = T0 + 600
    assert alive(live, back, back + 29) == []
    assert alive(live, back + 30, back + 30) == [KEY]


def test_nothing_ends_while_the_lane_is_away_even_when_the_sweeper_is_there(live: SyncStore) -> None:
    alive(live, T0 - 60, T0)
    live.register(KEY, DOCUMENT, now=T0)
    for second in range(1, 120):
        assert live.sweep(now=T0 + second) == []
    assert alive(live, T0 + 120, T0 + 148) == []
    assert alive(live, T0 + 149, T0 + 150) == [KEY]


def test_a_lane_that_comes_back_before_the_next_sweep_still_counts_as_just_back(live: SyncStore) -> None:
    alive(live, T0 - 60, T0)
    live.register(KEY, Document(lease_ttl=5), now=T0)
    for second in range(1, 10):
        live.sweep(now=T0 + second)
    live.stamp(now=T0 + 9.5)
    assert live.sweep(now=T0 + 10) == []


def test_held_leases_do_not_keep_lapsed_ones_from_ending(live: SyncStore) -> None:
    for number in range(5):
        live.register(Key("default", "long", str(number)), Document(lease_ttl=600), now=T0 - 700)
    live.register(Key("default", "short", "x"), Document(lease_ttl=10), now=T0 - 50)
    alive(live, T0, T0 + 9)
    assert live.sweep(limit=2, now=T0 + 11) == [Key("default", "short", "x")]


def test_a_sweep_ends_no_more_than_its_limit(live: SyncStore) -> None:
    alive(live, T0 - 60, T0)
    for number in range(5):
        live.register(Key("default", "orders", str(number)), Document(lease_ttl=10), now=T0)
    alive(live, T0 + 1, T0 + 9)
    assert len(live.sweep(limit=3, now=T0 + 10)) == 3
    assert len(live.sweep(limit=3, now=T0 + 10)) == 2


def test_an_equal_fact_does_not_move_the_index(live: SyncStore) -> None:
    live.register(KEY, DOCUMENT)
    assert live.put_fact(KEY, "probe", Fact("unhealthy", "it answers 500", since=1.0)) is not None
    before = seq(live)
    assert live.put_fact(KEY, "probe", Fact("unhealthy", "it answers 500", since=2.0)) is None
    assert seq(live) == before
    assert live.put_fact(KEY, "probe", Fact("healthy")) is not None
    assert live.put_fact(KEY, "probe", None) is not None
    assert live.put_fact(KEY, "probe", None) is None


def test_what_was_found_goes_with_the_instance_and_the_operators_word_stays(live: SyncStore) -> None:
    live.register(KEY, DOCUMENT)
    live.put_fact(KEY, "probe", Fact("healthy"))
    live.put_fact(KEY, "reported", Fact("healthy"))
    live.put_fact(KEY, "state", Fact("draining", "an upgrade"))
    live.deregister(KEY)
    known = live.snapshot().known[KEY]
    assert known.document is None
    assert known.facts == {"state": Fact("draining", "an upgrade")}


def test_a_verdict_that_comes_too_late_is_not_kept(live: SyncStore) -> None:
    assert live.put_fact(KEY, "probe", Fact("healthy")) is None
    assert live.snapshot().known == {}


def test_an_operators_word_may_come_before_the_instance_and_before_the_service(live: SyncStore) -> None:
    assert live.put_fact(KEY, "state", Fact("maintenance")) is not None
    assert live.put_fact(Key("default", "orders"), "state", Fact("draining")) is not None
    assert set(live.snapshot().known) == {KEY, Key("default", "orders")}


def test_the_check_a_registration_asks_for_comes_and_goes_with_it(live: SyncStore) -> None:
    live.register(KEY, DOCUMENT, check=Fact('{"path": "/health"}'))
    assert live.snapshot().known[KEY].facts["check"].value == '{"path": "/health"}'
    live.register(KEY, DOCUMENT)
    assert live.snapshot().known[KEY].facts == {}


def test_each_change_has_the_next_number(live: SyncStore) -> None:
    live.register(KEY, DOCUMENT)
    live.put_fact(KEY, "probe", Fact("healthy"))
    live.deregister(KEY)
    changes = live.changes(after=0)
    assert [(change.seq, change.op) for change in changes] == [(1, "put"), (2, "fact"), (3, "gone")]
    assert changes[0].document == DOCUMENT
    assert changes[1].fact == Fact("healthy")
    assert [change.seq for change in live.changes(after=2)] == [3]


def test_a_wiped_store_has_another_epoch(live: SyncStore) -> None:
    first = live.register(KEY, DOCUMENT).index
    live.redis.flushall()
    second = live.register(KEY, DOCUMENT).index
    assert first.epoch != second.epoch
    assert second.seq == 1


def test_a_snapshot_of_more_than_a_page_is_whole(live: SyncStore) -> None:
    for number in range(1203):
        live.register(Key("default", "orders", str(number)), DOCUMENT)
    assert len(live.snapshot().known) == 1203


def test_scripts_that_redis_forgot_are_sent_again(live: SyncStore) -> None:
    live.register(KEY, DOCUMENT)
    live.redis.script_flush()
    assert live.heartbeat(KEY) is not None


def test_processes_that_write_at_once_leave_no_gap_and_lose_nothing(live: SyncStore, redis_url: str) -> None:
    def work(worker: int) -> None:
        for number in range(50):
            key = Key("default", "orders", f"{number % 10}")
            live.register(key, Document(version=f"{worker}.{number}"))
            live.put_fact(key, "probe", Fact("healthy", f"{worker} {number}"))
            if number % 7 == 0:
                live.deregister(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    changes = live.changes(after=0, count=10_000)
    assert [change.seq for change in changes] == list(range(1, len(changes) + 1))


async def test_calls_made_together_share_round_trips_and_each_gets_its_own_answer(
    async_store: aioredis.Redis,
) -> None:
    live = AsyncStore(async_store)
    keys = [Key("default", "orders", str(number)) for number in range(300)]
    await asyncio.gather(*(live.register(key, DOCUMENT) for key in keys))
    ttls = await asyncio.gather(*(live.heartbeat(key) for key in [*keys, Key("default", "orders", "nobody")]))
    assert [ttl is None for ttl in ttls] == [False] * 300 + [True]
    assert len((await live.snapshot()).known) == 300
    assert len(await live.leases()) == 300


async def test_one_call_that_is_given_up_leaves_the_others_alone(async_store: aioredis.Redis) -> None:
    live = AsyncStore(async_store)
    first = asyncio.ensure_future(live.register(KEY, DOCUMENT))
    second = asyncio.ensure_future(live.register(Key("default", "orders", "b"), DOCUMENT))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).outcome == "created"


async def test_a_script_that_fails_fails_only_its_own_caller(async_store: aioredis.Redis) -> None:
    live = AsyncStore(async_store)
    await async_store.set(f"{ops.PREFIX}i:{KEY}", "no hash")
    answers = await asyncio.gather(
        live.register(KEY, DOCUMENT), live.register(Key("default", "orders", "b"), DOCUMENT), return_exceptions=True
    )
    assert isinstance(answers[0], redis.ResponseError)
    assert not isinstance(answers[1], BaseException)


def test_a_quota_keeps_out_only_who_is_new(live: SyncStore) -> None:
    quota = ops.Quota(services=2, instances=3)
    keys = [Key("default", "orders", "a"), Key("default", "orders", "b"), Key("default", "stock", "a")]
    for key in keys:
        live.register(key, DOCUMENT, quota=quota)
    with pytest.raises(ops.QuotaExceeded, match="may have 3 instances"):
        live.register(Key("default", "orders", "c"), DOCUMENT, quota=quota)
    for lower in (ops.Quota(services=1), ops.Quota(instances=1)):
        assert live.register(keys[2], Document(version="2"), quota=lower).outcome != "created"
    assert live.register(Key("acme", "orders", "c"), DOCUMENT, quota=quota).outcome == "created"
    live.deregister(keys[1])
    with pytest.raises(ops.QuotaExceeded, match="may have 2 services"):
        live.register(Key("default", "users", "a"), DOCUMENT, quota=quota)
    live.deregister(keys[0])
    assert live.register(Key("default", "users", "a"), DOCUMENT, quota=quota).outcome == "created"
