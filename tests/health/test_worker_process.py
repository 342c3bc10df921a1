"""A real Celery worker, in a process of its own, that gets its ticks through a real Valkey."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from anumate.celery import app
from health.schedule import DUE, SHIFT
from registry.live.instances import Fact, Key
from tests.conftest import wait_until
from tests.health.conftest import Register
from tests.health.servers import Switchable

ROOT = Path(__file__).resolve().parent.parent.parent
Probed = Callable[[Key], Fact | None]


@pytest.fixture
def home(tmp_path: Path, store: redis.Redis) -> Path:
    """A state directory with a migrated database that has a tenant in it."""
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment(tmp_path), check=True)
    with closing(sqlite3.connect(tmp_path / "anumate.sqlite3")) as rows, rows:
        rows.execute(
            "INSERT INTO registry_tenant (name, title, active, created_at) VALUES ('shop', '', 1, '2026-01-01')"
        )
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "DJANGO_ALLOW_ASYNC_UNSAFE"}
    }
    return {**kept, "ANUMATE_HOME": str(home)}


@contextmanager
def celery_worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "anumate.celery",
        "worker",
        "-P",
        "threads",
        "-c",
        "2",
        "-l",
        "warning",
    ]
    log = (home / "worker.log").open("ab")
    process = subprocess.Popen(command, cwd=ROOT, env=environment(home), stdout=log, stderr=log)
    try:
        yield process
    finally:
        log.close()
        if process.poll() is None:
            process.kill()
        process.wait(10)


def ticking(condition: Callable[[], object]) -> Callable[[], object]:
    """`condition`, with a tick sent before each look, as beat would send it."""

    def look() -> object:
        app.send_task("health.tasks.tick", expires=1.0)
        return condition()

    return look


def until(condition: Callable[[], object], what: str) -> None:
    wait_until(ticking(condition), seconds=30, what=what)


@pytest.mark.timeout(120)
def test_a_worker_takes_an_instance_that_answers_500_out_and_brings_it_back(
    server: Switchable, register: Register, probed: Probed, store: redis.Redis, home: Path
) -> None:
    wish = json.dumps({"path": "/up", "interval": 1, "timeout": 1, "failure_threshold": 2, "success_threshold": 1})
    key = register(server.port, check=wish, lease_ttl=300)

    def verdict() -> str:
        fact = probed(key)
        return fact.value if fact else "unknown"

    with celery_worker(home) as worker:
        until(lambda: verdict() == "healthy", "the first verdict")
        server.status = 500
        until(lambda: verdict() == "unhealthy", "the instance to go unhealthy")
        server.status = 200
        until(lambda: verdict() == "healthy", "the instance to come back")
        rows = f"file:{home / 'anumate.sqlite3'}?mode=ro"
        with closing(sqlite3.connect(rows, uri=True)) as journal:
            until(
                lambda: (
                    journal.execute("SELECT old, new FROM health_flip ORDER BY id").fetchall()
                    == [("unknown", "healthy"), ("healthy", "unhealthy"), ("unhealthy", "healthy")]
                ),
                "three flips in the journal",
            )
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0


@pytest.mark.timeout(120)
def test_another_worker_goes_on_where_one_was_killed(
    server: Switchable, register: Register, probed: Probed, store: redis.Redis, home: Path
) -> None:
    wish = json.dumps({"path": "/up", "interval": 1, "timeout": 1, "failure_threshold": 1})
    key = register(server.port, check=wish, lease_ttl=300)
    with celery_worker(home) as first:
        until(lambda: probed(key), "the first verdict")
        first.kill()
        first.wait(10)
    # As if it had died in the middle of its turn, with the check in its hands.
    store.set(SHIFT, "the dead", px=5_000)
    store.zadd(DUE, {f"{key}|0": (store.time()[0] + 3) * 1000})
    server.status = 500
    with celery_worker(home):
        until(lambda: (fact := probed(key)) and fact.value == "unhealthy", "the next worker's verdict")
