"""The live page with fifty viewers: how soon a change is before all of them. `python -m benchmarks live`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from typing import Final

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

from benchmarks.ours import PEPPER
from benchmarks.processes import memory
from benchmarks.registry import configure, web_worker
from benchmarks.stand import OTHER, PYTHON, Stand, rows
from benchmarks.stats import percentile
from registry.live.instances import Document, Fact, Key
from registry.live.store import SyncStore

VIEWERS: Final = 50
SERVICES: Final = 1_000
CHANGES: Final = 20
PATIENCE: Final = 10.0
BEAT: Final = 0.25
"""The page hears at most four times a second."""
MOST_MS: Final = 1000
_SESSION: Final = """
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from registry.models import Tenant
Tenant.objects.get_or_create(name="default")
browser = Client()
browser.force_login(User.objects.create_superuser("viewer"))
print("; ".join(f"{name}={morsel.value}" for name, morsel in browser.cookies.items()))
"""


def main() -> None:
    with Stand() as stand:
        configure(stand)
        store = SyncStore(stand.redis)
        for number in range(SERVICES):
            store.register(Key("default", f"service-{number}", "a"), Document(lease_ttl=3600))
        web, port = web_worker(stand)
        environ = stand.environ(
            SECRET_KEY="a signing key for benchmarks, long enough to be accepted",
            API_KEY_PEPPER=PEPPER,
            DJANGO_SETTINGS_MODULE="anumate.settings",
        )
        made = subprocess.run([PYTHON, "-c", _SESSION], check=True, env=environ, capture_output=True, text=True)
        os.sched_setaffinity(0, {OTHER})
        before = memory(web.pid).rss
        times = uvloop.run(_measure(port, made.stdout.strip(), store))
        grown = memory(web.pid).rss - before
    rows(
        f"Live page: {CHANGES} changes among {SERVICES:,} services before {VIEWERS} viewers",
        ("", "measured", "limit"),
        [
            ("p50, ms", f"{percentile(times, 0.5) * 1000:.0f}", ""),
            ("p99, ms", f"{percentile(times, 0.99) * 1000:.0f}", MOST_MS),
            ("memory growth, MB", f"{grown:.0f}", ""),
        ],
    )


async def _measure(port: int, cookie: str, store: SyncStore) -> list[float]:
    """Seconds from each change until each viewer heard it."""
    viewers = [await _viewer(port, cookie) for _ in range(VIEWERS)]
    times: list[float] = []
    for number in range(CHANGES):
        service = f"service-{number}"
        await asyncio.sleep(random.uniform(0, BEAT))  # at no certain moment between two frames
        waiting = [asyncio.create_task(_hears(viewer, service)) for viewer in viewers]
        changed = time.perf_counter()
        fact = Fact("unhealthy", "Connection refused.", time.time(), "checks")
        store.put_fact(Key("default", service, "a"), "probe", fact)
        heard = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
        times += [at - changed for at in heard]
    for viewer in viewers:
        await viewer.close()
    return times


async def _viewer(port: int, cookie: str) -> ClientConnection:
    viewer = await connect(
        f"ws://localhost:{port}/ws/live/?tenant=default",
        host="127.0.0.1",
        origin=Origin(f"http://localhost:{port}"),
        additional_headers={"Cookie": cookie},
        max_size=None,
    )
    snapshot = json.loads(await asyncio.wait_for(viewer.recv(), PATIENCE))
    if snapshot["type"] != "snapshot":
        raise SystemExit(f"The live page says {snapshot['type']} in place of a snapshot.")
    return viewer


async def _hears(viewer: ClientConnection, service: str) -> float:
    while True:
        change = json.loads(await viewer.recv())
        if any(each["name"] == service and each["status"] == "down" for each in change.get("services", ())):
            return time.perf_counter()


if __name__ == "__main__":
    main()
