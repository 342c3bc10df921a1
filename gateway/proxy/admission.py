"""How much is in flight at once in this worker: as a whole, on a route, to a service. More is refused at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.table import Route, Upstream

RETRY_AFTER: Final = {"Retry-After": "1"}


class Gate:
    """Lets so many in at once; `most` 0 is no limit."""

    __slots__ = ("inside", "most", "what")

    def __init__(self, what: str, most: int) -> None:
        self.what = what
        self.most = most
        self.inside = 0

    @property
    def full(self) -> bool:
        return self.inside >= self.most > 0

    def enter(self) -> None:
        """Raises Problem: overloaded."""
        if self.full:
            raise self.refusal()
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def refusal(self) -> Problem:
        return Problem("overloaded", f"{self.what} takes {self.most} requests at once.", headers=RETRY_AFTER)


class Admission:
    """All gates of this worker. What is inside stays counted, whatever is published."""

    def __init__(self, most: int) -> None:
        self.whole = Gate("This gateway", most)
        self._routes: dict[int, Gate] = {}
        self._services: dict[tuple[str, str], Gate] = {}

    def adopt(self, routes: Iterable[Route], upstreams: Iterable[Upstream]) -> None:
        """Have gates for those that ask for one."""
        self._routes = {
            route.id: _renewed(self._routes.get(route.id), f"Route {route.name}", route.limits.concurrent)
            for route in routes
            if route.limits.concurrent
        }
        self._services = {
            pair: _renewed(self._services.get(pair), f"Service {each.service}", each.concurrent)
            for each in upstreams
            if each.concurrent and (pair := (each.tenant, each.service))
        }

    def route(self, id: int) -> Gate | None:
        return self._routes.get(id)

    def service(self, tenant: str, service: str) -> Gate | None:
        return self._services.get((tenant, service)) if self._services else None


def _renewed(gate: Gate | None, what: str, most: int) -> Gate:
    if gate is None:
        return Gate(what, most)
    gate.most = most
    return gate
