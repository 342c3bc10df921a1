"""Several processes on one Valkey, each doing what it likes: what they leave behind must still add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import redis

from registry.live.catalog import Catalog
from registry.live.instances import Document, Key
from registry.live.store import SyncStore
from tests.registry.live.test_leases import expect_counts

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 4

# All of them speak of the same thirty instances. A sweep goes by a clock an hour ahead, so that it ends what it finds.
RACER = """
import random, sys, time
import redis
from registry.live.instances import Document, Key
from registry.live.store import SyncStore

url, seed = sys.argv[1], int(sys.argv[2])
rng, live = random.Random(seed), SyncStore(redis.Redis.from_url(url))
made = ended = 0
for turn in range(1500):
    key = Key("default", f"service-{rng.randrange(3)}", f"{rng.randrange(10)}")
    match rng.choices(("register", "heartbeat", "deregister", "sweep"), (5, 3, 2, 0.2))[0]:
        case "register":
            made += live.register(key, Document(version=str(rng.randrange(5)), lease_ttl=60)).outcome == "created"
        case "heartbeat":
            live.heartbeat(key)
        case "deregister":
            ended += live.deregister(key) is not None
        case "sweep":
            live.stamp(now=time.time() + 3600)
            ended += len(live.sweep(limit=5, now=time.time() + 3600))
print(made, ended)
"""


def race(redis_url: str) -> tuple[int, int]:
    """How many instances all racers together were told that they made, and that they ended."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, redis_url, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for seed in range(PROCESSES)
    ]
    told = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    return sum(int(made) for made, _ in told), sum(int(ended) for _, ended in told)


def test_what_several_processes_do_at_once_adds_up(store: redis.Redis, redis_url: str) -> None:
    made, ended = race(redis_url)
    live = SyncStore(store)
    known = live.snapshot().known
    assert made > 100
    assert ended > 100
    assert made - ended == len(known)
    expect_counts(store, set(known))


def test_the_stream_of_changes_that_several_processes_wrote_tells_what_there_is(
    store: redis.Redis, redis_url: str
) -> None:
    live = SyncStore(store)
    begun = live.snapshot()
    race(redis_url)
    catalog = Catalog()
    catalog.replace(begun)
    while changes := live.changes(catalog.position.seq, count=500):
        catalog.apply(*changes)
    services = catalog.services("default")
    told = {each.key: each.document for service in services for each in catalog.instances("default", service)}
    assert told == {key: known.document for key, known in live.snapshot().known.items() if known.document}


def test_who_registers_the_same_at_once_is_one_instance(store: redis.Redis, redis_url: str) -> None:
    live, key = SyncStore(store), Key("default", "orders", "one")
    argv = [sys.executable, "-c", ONE, redis_url]
    racers = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    told = [word for racer in racers for word in racer.communicate(timeout=60)[0].split()]
    assert told.count("created") == 1
    assert len(told) == PROCESSES * 200
    assert len(live.snapshot().known) == 1
    assert live.read([key])[key].document == Document(lease_ttl=60)


ONE = """
import sys
import redis
from registry.live.instances import Document, Key
from registry.live.store import SyncStore

live = SyncStore(redis.Redis.from_url(sys.argv[1]))
for _ in range(200):
    print(live.register(Key("default", "orders", "one"), Document(lease_ttl=60)).outcome)
"""
