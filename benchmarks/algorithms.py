"""What the algorithms cost that stand in a request's way, beside their targets. `python -m benchmarks algorithms`."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, Final, NamedTuple

from anumate_integration_service.balancing import STRATEGIES, Candidate
from anumate_integration_service.breaker import CircuitBreaker, Outcome
from anumate_integration_service.catalogue import Catalogue
from anumate_integration_service.instances import Endpoint, ServiceInstance
from benchmarks.stand import PYTHON, rows
from gateway.proxy.paths import read_path
from gateway.proxy.policies import Pair
from gateway.proxy.router import Router
from gateway.proxy.table import Route, RoutingTable, Target

CALLS = 100_000
ROUNDS = 5
INSTANCES, SERVICES = 10_000, 1_000


def main() -> None:
    rows(
        "Balancing: picks a second",
        ("", "3 instances", "50, idle", "50, in use"),
        [("(target)", "1,000,000", "500,000", "500,000"), *_picks()],
    )
    lines = [(name, f"{1e6 / _per_second(call):.2f}", target) for name, call, target in _decisions()]
    rows("Decisions: µs each", ("", "µs", "target"), lines)
    footprint = [PYTHON, "-m", "benchmarks.footprint", str(INSTANCES), str(SERVICES)]
    answer = subprocess.run(footprint, check=True, capture_output=True, text=True)
    rows(
        f"Memory: the platform's catalogue, {INSTANCES:,} instances in {SERVICES:,} services",
        ("", "bytes", "target"),
        [("an instance with the words of its check", f"{float(answer.stdout):,.0f}", "< 2,048")],
    )


def _picks() -> Iterator[tuple[str, ...]]:
    for name in STRATEGIES:
        shares = ((3, False), (50, False), (50, True))
        yield (name, *(f"{_picks_of(name, count, busy=busy):,.0f}" for count, busy in shares))


def _picks_of(name: str, count: int, *, busy: bool) -> float:
    """`busy`: each has requests in flight, and not all as many."""
    candidates = tuple(Candidate(str(number), 100) for number in range(count))
    for number, candidate in enumerate(candidates):
        candidate.observed(1.0, 0.01, False)
        for _ in range(1 + number % 3 if busy else 0):
            candidate.started()
    strategy = STRATEGIES[name]()
    return _per_second(lambda: strategy.pick(candidates, 0.0, random.random, "10.0.0.1"))


def _decisions() -> Iterator[tuple[str, Callable[[], object], str]]:
    yield "breaker: a call let through and settled", _call(), "< 1.00"
    yield f"client: a lookup among {INSTANCES:,} instances", _lookup(), "< 2.00"
    for kind, make, request in _ROUTES:
        for count in (1, 100, 10_000):
            yield f"router: a match among {count:,} routes told apart by {kind}", _match(make, request, count), ""


def _call() -> Callable[[], object]:
    breaker = CircuitBreaker()

    def call() -> None:
        ticket = breaker.acquire(1.0)
        if ticket is not None:
            breaker.settle(ticket, Outcome.SUCCESS, 1.0, 0.01)

    return call


def _lookup() -> Callable[[], object]:
    catalogue = Catalogue()
    catalogue.replace(
        ServiceInstance(
            f"service-{number % SERVICES}",
            f"{number:08x}",
            version="1.4.2",
            endpoints={"http": Endpoint("http", "10.0.0.1", 8000)},
            tags=("api", "production"),
            zone=f"zone-{number % 3}",
        )
        for number in range(INSTANCES)
    )
    return lambda: catalogue.find("service-7", ">=1.2,<2", ("api",), (), "zone-1")


class _Request(NamedTuple):
    path: bytes
    query: bytes = b""


_HEADERS: Final = [(b"host", b"h"), (b"user-agent", b"curl/8"), (b"accept", b"*/*"), (b"x-shop", b"0")]
_ROUTES: Final[list[tuple[str, Callable[[int], dict[str, Any]], _Request]]] = [
    ("prefix", lambda n: {"path": f"/area{n % 97}/r{n}"}, _Request(b"/area0/r0/7")),
    ("beginning of an expression", lambda n: {"path": f"/r{n}/[0-9]+", "path_type": "regex"}, _Request(b"/r0/7")),
    (
        "end of an expression",
        lambda n: {"path": f"/s{n // 50}/[^/]+/r{n % 50}", "path_type": "regex"},
        _Request(b"/s0/7/r0"),
    ),
    ("header", lambda n: {"headers": (Pair("X-Shop", str(n)),)}, _Request(b"/7")),
    ("query", lambda n: {"query": (Pair("shop", str(n)),)}, _Request(b"/7", b"shop=0")),
]


def _match(make: Callable[[int], dict[str, Any]], request: _Request, count: int) -> Callable[[], object]:
    routes = tuple(Route(n, f"r{n}", "t", (Target("s"),), **make(n)) for n in range(count))
    router = Router(RoutingTable(routes=routes))
    # What was found out for the last request is of no use.
    paths = cycle((request.path, request.path.replace(b"7", b"8")))
    queries = cycle((request.query, request.query + b"&page=2"))
    return lambda: router.match("t", "h", "GET", read_path(next(paths)).matched, _HEADERS, next(queries))


def _per_second(call: Callable[[], object]) -> float:
    """The best of several rounds: whatever else the machine does only makes a round slower."""
    best = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = max(best, CALLS / (time.perf_counter() - started))
    return best
