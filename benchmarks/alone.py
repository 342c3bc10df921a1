"""What only our gateway is measured for: routes, keys, workers, servers and memory."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from benchmarks import checks, load, ours, services
from benchmarks.load import Request
from benchmarks.processes import memory
from benchmarks.rounds import Rounds, interleave, table_of
from benchmarks.services import program
from benchmarks.stand import MEASURED, OTHER, PYTHON, Stand, free_port
from benchmarks.stats import Table, slope
from benchmarks.workloads import WORKLOADS, Contestant, Workload
from gateway.proxy.table import RateLimit

KEYS: Final = 10_000
HOT_KEYS: Final = 100
HOT_SHARE: Final = 0.9
SEQUENCE: Final = 20_000
RATE, BURST = 1000.0, 500
"""Of the bucket that two workers share: far less than a worker can serve."""


class Terms(NamedTuple):
    rounds: int
    seconds: int
    minutes: float


Report = tuple[Table, Rounds]


@contextlib.contextmanager
def serving(
    routes: int = 100, keys: int = 1, workers: int = 1, command: Sequence[str] = ()
) -> Iterator[tuple[Contestant, list[str]]]:
    """A gateway with so much in its tables, on a Valkey of its own, before services of its own; and its keys."""
    with Stand() as stand:
        found = services.start(stand)
        made = ours.publish_keys(stand, keys)
        tight = RateLimit("default", "tight", RATE, BURST, "key")
        table = [ours.route(1, "orders", "orders"), ours.route(2, "tight", "orders", "tight"), *ours.others(routes - 1)]
        ours.publish_routes(stand, table, limits=(ours.PLENTY, tight))
        ours.register(stand, {"orders": (found.first, found.second)})
        port = free_port()
        if command:
            filled = [services.fill_in(word, {"port": port}) for word in command]
            process = stand.start(*filled, core=MEASURED, port=port, API_KEY_PEPPER=ours.PEPPER)
        else:
            process = ours.start(stand, port, workers)
        checks.ready(port, made[0])
        yield Contestant("ours", process, port, made[0]), made


def routes(terms: Terms) -> Iterator[Report]:
    with contextlib.ExitStack() as stack:
        cases = {}
        for count in (1, 100, 10_000):
            contestant, _ = stack.enter_context(serving(count))
            cases[f"routes-{count}"] = (WORKLOADS["small-32"], contestant)
        yield _compare("routes: small-32 with so many routes in the table", cases, terms)


def keys(terms: Terms) -> Iterator[Report]:
    chance = random.Random(1)
    with serving(keys=KEYS) as (contestant, made):

        def asking(pick: Callable[[], str]) -> tuple[Workload, Contestant]:
            requests = [Request("GET", "/orders/7", headers={"X-API-Key": pick()}) for _ in range(SEQUENCE)]
            return Workload("", requests), contestant

        hot, cold = made[:HOT_KEYS], made[HOT_KEYS:]
        cases = {
            "one key": asking(lambda: made[0]),
            "keys-10000": asking(lambda: chance.choice(hot if chance.random() < HOT_SHARE else cold)),
            "keys-cold": asking(lambda: chance.choice(made)),
        }
        title = f"keys: small-32 with {KEYS:,} keys, of which {HOT_KEYS} send {HOT_SHARE:.0%} or all send alike"
        yield _compare(title, cases, terms)


def two_workers(terms: Terms) -> Iterator[Report]:
    with serving() as (one, _), serving(workers=2) as (two, _):
        twice = replace(WORKLOADS["small-32"], connections=64)
        cases = {
            "two workers": (WORKLOADS["small-32"], two),
            "one worker": (WORKLOADS["small-32"], one),
            "two workers, 64 connections": (twice, two),
        }
        yield _compare("two-workers: small-32 on one core", cases, terms)
        lines = []
        for _ in range(terms.rounds):
            time.sleep(BURST / RATE + 1)  # until the bucket is full
            began = time.monotonic()
            result = load.run(
                f"{two.base}/tight/7", core=OTHER, seconds=max(3, terms.seconds), headers={"X-API-Key": two.key}
            )
            took = time.monotonic() - began
            admitted, bound = result.total - result.failed, BURST + RATE * took
            lines.append([f"{took:.2f} s", f"{admitted:,}", f"{bound:,.0f}", f"{admitted / bound:.1%}"])
        title = f"two-workers: admitted of a bucket of {RATE:g}/s and {BURST} that both share (wanted: 95 % to 100 %)"
        yield Table(title, ("in", "admitted", "burst + rate · T", "share"), lines), {}


def servers(terms: Terms) -> Iterator[Report]:
    commands: dict[str, Sequence[str]] = {
        "ours under uvicorn": (PYTHON, "-m", "benchmarks.worker", "@port@"),
        "ours under gunicorn": (),
        "uvicorn's httptools": (PYTHON, "-m", "benchmarks.worker", "@port@", "httptools"),
        "uvicorn's httptools under gunicorn": (
            *(PYTHON, "-m", "gunicorn", "anumate_integration_service.app:gateway", "--bind=127.0.0.1:@port@"),
            *("--worker-class=uvicorn_worker.UvicornWorker", "--workers=1", "--log-level=warning", "--keep-alive=75"),
            "--no-control-socket",
        ),
    }
    if granian := program("granian"):
        commands["granian"] = (
            *(granian, "--interface=asgi", "--factory", "--host=127.0.0.1", "--port=@port@", "--workers=1"),
            *("--runtime-threads=1", "--loop=uvloop", "--no-ws", "--log-level=warning"),
            "gateway.proxy.app:create_app",
        )
    with contextlib.ExitStack() as stack:
        cases = {}
        for name, command in commands.items():
            contestant, _ = stack.enter_context(serving(command=command))
            cases[name] = (WORKLOADS["small-32"], contestant)
        table, found = _compare("servers: small-32 with the gateway under each", cases, terms)
        missing = [] if granian else ["granian is left out: it comes with pip install -e '.[bench]'."]
        yield table._replace(notes=missing), found


def memory_growth(terms: Terms) -> Iterator[Report]:
    with serving() as (contestant, _):
        WORKLOADS["small-32"].send(contestant, 5)  # what it needs once is no growth
        began, points = time.monotonic(), list[tuple[float, float]]()
        while (minutes := (time.monotonic() - began) / 60) < terms.minutes:
            points.append((minutes, memory(contestant.process.pid).rss * 1024))
            WORKLOADS["small-32"].send(contestant, 5)
        points.append((terms.minutes, memory(contestant.process.pid).rss * 1024))
        line = [f"{terms.minutes:g}", f"{points[0][1]:,.0f}", f"{points[-1][1]:,.0f}", f"{slope(points):,.1f}"]
        header = ("minutes of small-32", "RSS KB at first", "at last", "KB a minute, least squares")
        yield Table("memory: does it grow under load?", header, [line]), {}


def _compare(title: str, cases: dict[str, tuple[Workload, Contestant]], terms: Terms) -> Report:
    for workload, contestant in cases.values():
        workload.send(contestant, 1)
    found = interleave(
        {
            name: lambda workload=workload, contestant=contestant: workload.measure(contestant, terms.seconds)  # type: ignore[misc]
            for name, (workload, contestant) in cases.items()
        },
        terms.rounds,
    )
    return table_of(title, found), found


ALONE: Final[dict[str, Callable[[Terms], Iterator[Report]]]] = {
    "routes": routes,
    "keys": keys,
    "two-workers": two_workers,
    "servers": servers,
    "memory": memory_growth,
}
