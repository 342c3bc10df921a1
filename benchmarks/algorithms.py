"""What a pick, a breaker's decision and a route's match cost. `python -m benchmarks algorithms`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from anumate_integration_service.balancing import STRATEGIES, Candidate
from anumate_integration_service.breaker import CircuitBreaker, Outcome
from benchmarks.stand import rows
from gateway.proxy.router import Router, read_path
from gateway.proxy.table import Route, RoutingTable, Target

CALLS = 100_000


def main() -> None:
    picks = [(name, *(f"{_picks(name, count):,.0f}" for count in (3, 50))) for name in STRATEGIES]
    rows("Balancing: picks a second", ("", "3 instances", "50 instances"), picks)
    breaker = CircuitBreaker()

    def call() -> None:
        ticket = breaker.acquire(1.0)
        if ticket is not None:
            breaker.settle(ticket, Outcome.SUCCESS, 1.0, 0.01)

    lines = [("breaker: a call let through and settled", f"{1e6 / _per_second(call):.2f}")]
    for count in (1, 100, 10_000):
        routes = tuple(Route(n, f"r{n}", "t", (Target("s"),), path=f"/area{n % 97}/r{n}") for n in range(count))
        router = Router(RoutingTable(routes=routes))

        def match(router: Router = router) -> None:
            router.match("t", "h", "GET", read_path(b"/area0/r0/7").matched)

        lines.append((f"router: a match among {count:,} routes", f"{1e6 / _per_second(match):.2f}"))
    rows("Decisions", ("", "µs"), lines)


def _picks(name: str, count: int) -> float:
    candidates = tuple(Candidate(str(number), 100) for number in range(count))
    for candidate in candidates:
        candidate.started()
        candidate.observed(1.0, 0.01, False)
    strategy = STRATEGIES[name]()
    return _per_second(lambda: strategy.pick(candidates, 0.0, random.random, "10.0.0.1"))


def _per_second(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return CALLS / (time.perf_counter() - started)
