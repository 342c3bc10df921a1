"""What the worker serves right now: the table compiled and bound, swapped whole."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from anumate.lib.env import Env
from gateway.proxy.balancer import Balancer, Share, check_targets
from gateway.proxy.guard import Guard
from gateway.proxy.limiter import Policy
from gateway.proxy.router import Router
from gateway.proxy.table import RateLimit, Route, RoutingTable, decode

logger = logging.getLogger("anumate.gateway")

INVOKE: Final = "gateway:invoke"


class Binding:
    """A route with everything that a request on it needs, so that no step has to look anything up."""

    __slots__ = ("policy", "route", "scopes", "shares")

    def __init__(self, route: Route, policy: Policy | None, shares: tuple[Share, ...]) -> None:
        self.route = route
        self.policy = policy
        self.shares = shares
        self.scopes = tuple(dict.fromkeys((INVOKE, *route.scopes)))


class Compiled:
    """A table, taken apart beside the loop. `skipped` are the routes that could not be, each with the sentence why."""

    def __init__(self, body: bytes) -> None:
        table = decode(body)
        bad = {route.id: (route.name, why) for route in table.routes if (why := _defect(route))}
        self.skipped = [(name, f"Route {name} is left out: {why}") for name, why in bad.values()]
        # By id: another tenant's route may have the same name.
        self.table = msgspec.structs.replace(table, routes=tuple(r for r in table.routes if r.id not in bad))
        self.router = Router(self.table)
        self.skipped += self.router.skipped
        self.policies = {(limit.tenant, limit.name): Policy(limit) for limit in table.rate_limits}


class Here:
    """One state of the world. A request keeps the one it began with."""

    __slots__ = ("bindings", "revision", "router")

    def __init__(self, revision: int, router: Router, bindings: dict[int, Binding]) -> None:
        self.revision = revision
        self.router = router
        self.bindings = bindings


class Live:
    """Holds `current`. Breakers, counts and connections belong to services and instances, and outlive every swap."""

    def __init__(self, env: Env, balancer: Balancer, guard: Guard) -> None:
        self._balancer = balancer
        self._guard = guard
        self._default_limit = env.default_rate_limit
        self._default_policies: dict[str, Policy] = {}
        self.loaded = False
        self.current = Here(0, Router(RoutingTable()), {})

    def swap(self, compiled: Compiled) -> None:
        table = compiled.table
        self._balancer.adopt(table)
        self._guard.adopt(table)
        bindings = {
            route.id: Binding(route, self._policy(route, compiled), self._balancer.shares(route.tenant, route.targets))
            for route in table.routes
        }
        self.current = Here(table.revision, compiled.router, bindings)
        self.loaded = True
        for _, sentence in compiled.skipped:
            logger.warning(sentence)
        logger.info("serving revision %d with %d routes", table.revision, len(bindings))

    def _policy(self, route: Route, compiled: Compiled) -> Policy | None:
        if route.rate_limits:
            return compiled.policies.get((route.tenant, route.rate_limits[0])) or self._default(route.tenant)
        return self._default(route.tenant)

    def _default(self, tenant: str) -> Policy | None:
        rate = self._default_limit
        if not rate:
            return None
        if tenant not in self._default_policies:
            limit = RateLimit(tenant, "default", rate, rate, "key")
            self._default_policies[tenant] = Policy(limit, built_in=True)
        return self._default_policies[tenant]


def _defect(route: Route) -> str:
    return check_targets(route.targets) if route.targets else "It has no target."
