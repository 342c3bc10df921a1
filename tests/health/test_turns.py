"""Whole turns of a worker: real instances in a real Valkey, real servers, real rows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.db import OperationalError

from health import journal, schedule, services, shift, tasks
from health.models import Flip, HealthCheck, ResultRollup
from health.schedule import DUE, FLIPS, MINUTES, SHIFT, Member, histories
from health.services import Worker
from registry.live.instances import Fact, Key
from registry.live.store import SyncStore
from registry.models import Service, Tenant
from registry.services.changes import SYSTEM, change
from tests.conftest import wait_until
from tests.health.conftest import Register
from tests.health.servers import Switchable, closed_port

Turn = Callable[..., None]
Probed = Callable[[Key], Fact | None]


def declare(**wish: object) -> str:
    return json.dumps({"check_type": "http", "path": "/up", **wish})


def configure(service: Service, **fields: object) -> HealthCheck:
    check = HealthCheck(service=service, **fields)
    with change(SYSTEM, "created", check):
        check.save()
    return check


def flips() -> list[tuple[str, str, str]]:
    return list(Flip.objects.order_by("pk").values_list("instance_id", "old", "new"))


def test_an_instance_that_answers_500_goes_unhealthy_and_comes_back(
    server: Switchable, register: Register, turn: Turn, probed: Probed, shop: Tenant
) -> None:
    key = register(server.port, check=declare(failure_threshold=3, success_threshold=2))
    turn()
    assert (fact := probed(key))
    assert (fact.value, fact.sentence) == ("healthy", "GET /up answered 200")

    server.status = 500
    turn(2)
    assert probed(key) == fact
    turn()
    assert (fact := probed(key))
    assert (fact.value, fact.sentence) == ("unhealthy", "GET /up answered 500")
    assert abs(fact.since - time.time()) < 60

    server.status = 200
    turn()
    assert probed(key) == fact
    turn()
    assert (fact := probed(key))
    assert fact.value == "healthy"
    assert flips() == [("one", "unknown", "healthy"), ("one", "healthy", "unhealthy"), ("one", "unhealthy", "healthy")]


def test_without_any_wish_it_gets_a_tcp_check_of_its_first_endpoint(
    server: Switchable, register: Register, turn: Turn, probed: Probed, shop: Tenant
) -> None:
    there, away = register(server.port), register(closed_port(), "two")
    turn()
    assert (fact := probed(there))
    assert (fact.value, fact.sentence) == ("healthy", f"127.0.0.1:{server.port} accepts connections")
    assert (fact := probed(away))
    assert fact.value == "unhealthy"
    assert "refused" in fact.sentence
    assert server.asked == []


def test_what_people_configure_takes_the_place_of_what_it_asked_for(
    server: Switchable, register: Register, turn: Turn, orders: Service
) -> None:
    register(server.port, check=declare(path="/mine"))
    configure(orders, path="/theirs")
    turn()
    assert server.asked == ["/theirs"]


def test_an_edited_check_is_made_soon_and_not_when_the_old_one_was_due(
    server: Switchable, register: Register, worker: Worker, store: redis.Redis, orders: Service
) -> None:
    key = register(server.port)
    check = configure(orders, path="/old", interval=86_400)
    worker.turn()
    store.zadd(DUE, {str(Member(key, check.pk)): (time.time() + 80_000) * 1000})
    check.path = "/new"
    with change(SYSTEM, "changed", check):
        check.save()

    wait_until(lambda: worker.turn() or server.asked, what="the edited check")
    assert server.asked == ["/new"]


def test_the_worst_of_several_checks_speaks(
    server: Switchable, register: Register, turn: Turn, probed: Probed, orders: Service
) -> None:
    configure(orders, check_type="tcp")
    configure(orders, check_type="http", path="/up")
    server.status = 503
    key = register(server.port)
    turn()
    assert (fact := probed(key))
    assert (fact.value, fact.sentence) == ("unhealthy", "GET /up answered 503")
    server.status = 200
    turn(2)
    assert (fact := probed(key))
    assert fact.value == "healthy"


def test_checks_that_are_all_off_leave_an_instance_unknown(
    server: Switchable, register: Register, turn: Turn, probed: Probed, orders: Service, worker: Worker
) -> None:
    check = configure(orders)
    key = register(server.port)
    turn()
    assert probed(key)
    check.enabled = False
    with change(SYSTEM, "changed", check):
        check.save()
    worker.turn()
    wait_until(lambda: worker.turn() or not probed(key), what="the verdict to be taken away")
    wait_until(lambda: worker.turn() or len(flips()) == 2, what="both flips")
    assert flips() == [("one", "unknown", "healthy"), ("one", "healthy", "unknown")]


def test_an_instance_that_left_leaves_nothing_behind_but_its_story(
    server: Switchable,
    register: Register,
    turn: Turn,
    live: SyncStore,
    store: redis.Redis,
    worker: Worker,
    shop: Tenant,
) -> None:
    server.status = 500
    key = register(server.port, check=declare())
    turn()
    live.deregister(key)
    worker.turn()
    left = [name.decode() for name in store.scan_iter("anumate:{h}:*")]
    assert not [name for name in left if str(key) in name or name in (DUE, schedule.STREAKS)]
    assert flips() == [("one", "unknown", "unhealthy"), ("one", "unhealthy", "unknown")]
    assert Flip.objects.latest("pk").sentence == "It is no longer registered"


def test_what_another_worker_left_behind_is_cleared_away(
    server: Switchable, register: Register, store: redis.Redis, worker: Worker, shop: Tenant
) -> None:
    register(server.port)
    store.zadd(DUE, {"shop/orders/ghost|0": 1})
    worker.turn()
    assert store.zrange(DUE, 0, -1) == [b"shop/orders/one|0"]


def test_registering_again_keeps_the_streak(
    server: Switchable, register: Register, turn: Turn, probed: Probed, shop: Tenant
) -> None:
    key = register(server.port, check=declare(failure_threshold=3))
    turn()
    server.status = 500
    turn(2)
    register(server.port, check=declare(failure_threshold=3), version="2.0")
    turn()
    assert (fact := probed(key))
    assert fact.value == "unhealthy"


def test_the_first_check_of_a_new_instance_comes_within_two_seconds(
    server: Switchable, register: Register, worker: Worker, probed: Probed, shop: Tenant
) -> None:
    key = register(server.port, check=declare(interval=3600))
    started = time.monotonic()
    wait_until(lambda: worker.turn() or probed(key), what="the first verdict")
    assert time.monotonic() - started < 2.0


def test_a_wiped_live_state_is_told_again(
    server: Switchable, register: Register, turn: Turn, probed: Probed, store: redis.Redis, shop: Tenant
) -> None:
    key = register(server.port)
    turn()
    for name in store.scan_iter("anumate:{r}:*"):
        store.delete(name)
    register(server.port)
    turn()
    assert (fact := probed(key))
    assert fact.value == "healthy"


def test_only_one_worker_has_the_turn(
    server: Switchable, register: Register, worker: Worker, store: redis.Redis, probed: Probed, shop: Tenant
) -> None:
    key = register(server.port)
    store.set(SHIFT, "somebody else", px=60_000)
    worker.turn()
    assert not store.exists(DUE)
    assert probed(key) is None
    store.delete(SHIFT)
    worker.turn()
    assert store.exists(DUE)
    assert not store.exists(SHIFT)


def test_results_and_minutes_are_kept(
    server: Switchable, register: Register, turn: Turn, store: redis.Redis, worker: Worker, shop: Tenant
) -> None:
    key = register(server.port, check=declare())
    turn()
    server.status = 500
    turn(2)
    history = histories(store, [Member(key, 0)], last=50)[Member(key, 0)]
    assert [result.outcome.status for result in history.results] == [500, 500, 200]
    assert history.streak.failures == 2

    # As if that minute had been a while ago.
    (minute,) = store.smembers(MINUTES)
    store.rename(f"{schedule.PREFIX}roll:{minute.decode()}", f"{schedule.PREFIX}roll:1799999940")
    store.delete(MINUTES)
    store.sadd(MINUTES, 1_699_999_980)
    store.rename(f"{schedule.PREFIX}roll:1799999940", f"{schedule.PREFIX}roll:1699999980")
    worker.clerk._pruned = time.time()
    worker.turn()
    rollup = ResultRollup.objects.get()
    assert (rollup.instance_id, rollup.passed, rollup.failed) == ("one", 1, 2)
    assert 0 < rollup.latency_max <= rollup.latency_sum < 5
    assert not store.exists(MINUTES)


def test_a_database_that_is_away_loses_no_flip(
    server: Switchable,
    register: Register,
    turn: Turn,
    probed: Probed,
    store: redis.Redis,
    shop: Tenant,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker.turn()
    key = register(server.port)

    def away() -> int:
        raise OperationalError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "revision", away)
        turn()
    assert (fact := probed(key))
    assert fact.value == "healthy"
    assert store.llen(FLIPS) == 1
    assert "health's rows have to wait: the database is away" in caplog.text
    worker.turn()
    assert flips() == [("one", "unknown", "healthy")]
    assert store.llen(FLIPS) == 0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def turning(worker: Worker) -> Iterator[None]:
    """Turn after turn in a thread, as in Celery's pool."""
    over = threading.Event()

    def turns() -> None:
        while not over.wait(0.05):
            worker.turn()

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def test_a_target_that_hangs_delays_nobody_else(
    server: Switchable, register: Register, probed: Probed, worker: Worker, silent: int, shop: Tenant
) -> None:
    stuck = register(silent, "stuck", check=declare(timeout=4, interval=60))
    other = register(server.port, check=declare(interval=1, failure_threshold=2))
    with turning(worker):
        wait_until(lambda: probed(other), what="the first verdict")
        server.status = 500
        wait_until(lambda: (fact := probed(other)) and fact.value == "unhealthy", what="the flip")
        assert probed(stuck) is None
        wait_until(lambda: probed(stuck), what="the verdict on the one that hangs")
    assert (fact := probed(stuck))
    assert (fact.value, fact.sentence) == ("unhealthy", "GET /up: no answer within 4 s")


def test_a_turn_gives_its_thread_back_while_targets_hang_and_their_verdicts_come_later(
    monkeypatch: pytest.MonkeyPatch, server: Switchable, register: Register, probed: Probed, worker: Worker,
    silent: int, shop: Tenant,
) -> None:  # fmt: skip
    monkeypatch.setattr(shift, "LENGTH", 0.3)
    stuck = register(silent, "stuck", check=declare(timeout=6, interval=60))
    wait_until(lambda: worker.turn() or worker.slots.free < shift.IN_FLIGHT, what="the claim")
    other = register(server.port, check=declare(interval=60))
    wait_until(lambda: worker.turn() or probed(other), what="the verdict on the other", seconds=5)
    assert probed(stuck) is None
    wait_until(lambda: probed(stuck), what="the verdict on the one that hangs")
    wait_until(lambda: worker.slots.free == shift.IN_FLIGHT, what="its place to be free")


def test_ticks_that_come_while_a_turn_goes_on_return_at_once(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    entered, release = threading.Event(), threading.Event()

    def hold(claimed: Future[None]) -> None:
        entered.set()
        release.wait(10)
        claimed.set_result(None)

    monkeypatch.setattr(worker, "_run", hold)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(worker.turn)
        assert entered.wait(10)
        for tick in [pool.submit(worker.turn) for _ in range(20)]:
            tick.result(10)
        assert not first.done()
        release.set()
        first.result(10)


def test_a_batch_ends_although_a_check_does_not(
    monkeypatch: pytest.MonkeyPatch, register: Register, worker: Worker, silent: int, shop: Tenant
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(shift, "LENGTH", 0.1)
    monkeypatch.setattr(shift, "GRACE", 0.1)
    monkeypatch.setattr(shift, "probe", never)
    register(silent, check=declare(timeout=0.2, interval=60))
    wait_until(lambda: worker.turn() or worker.slots.free < shift.IN_FLIGHT, what="the claim")
    wait_until(lambda: worker.slots.free == shift.IN_FLIGHT, what="the end of the batch")


def test_a_process_that_is_asked_to_end_does_not_wait_for_a_target(
    register: Register, store: redis.Redis, worker: Worker, silent: int, shop: Tenant
) -> None:
    key = register(silent, "stuck", check=declare(timeout=30, interval=3600))
    member = str(Member(key, 0))
    with turning(worker):
        wait_until(lambda: (store.zscore(DUE, member) or 0) > (time.time() + 1800) * 1000, what="the claim")
        services.stopping.set()
        started = time.monotonic()
    services.stopping.clear()
    assert time.monotonic() - started < 3
    assert not store.exists(SHIFT)


def test_a_store_that_is_away_is_one_line_in_the_log(transactional_db: None, caplog: pytest.LogCaptureFixture) -> None:
    Worker(f"redis://127.0.0.1:{closed_port()}").turn()
    (record,) = caplog.records
    assert record.getMessage().startswith("no checks are made while the store is away")


def test_the_tick_does_nothing_when_the_health_manager_is_off(
    register: Register, store: redis.Redis, server: Switchable, shop: Tenant, settings: Any
) -> None:
    register(server.port)
    settings.ENV = dataclasses.replace(settings.ENV, health_manager_enabled=False)
    tasks.tick()
    assert not store.exists(DUE)
    settings.ENV = dataclasses.replace(settings.ENV, health_manager_enabled=True)
    tasks.tick()
    assert store.exists(DUE)
