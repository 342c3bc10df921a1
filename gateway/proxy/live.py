"""What the worker serves right now: the table compiled and bound, swapped whole."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Final, TypeVar

import msgspec

from anumate.lib.env import Env
from anumate.lib.problem import Problem
from anumate.lib.sealing import unseal
from anumate_integration_service.breaker import CircuitBreaker
from anumate_integration_service.retries import RetryBudget
from gateway.proxy.admission import Admission, Gate
from gateway.proxy.balancer import Balancer, Pair, Share, check_targets, wanted_by
from gateway.proxy.buckets import Policy
from gateway.proxy.canary import Choice
from gateway.proxy.cors import Cors, of_route
from gateway.proxy.edits import edits_of
from gateway.proxy.entitlement import scopes_of
from gateway.proxy.exchange import NO_STATUSES
from gateway.proxy.guard import Guard
from gateway.proxy.mirror import Reflection
from gateway.proxy.policies import AccessLog, Tls
from gateway.proxy.reports import Skipped
from gateway.proxy.router import Router
from gateway.proxy.table import RateLimit, Route, RoutingTable, Target, Upstream, decode, reads_credentials
from gateway.proxy.tls import TLS_KEYS, Secure, secure, usual

logger = logging.getLogger("anumate.gateway")

BUDGET_SECONDS: Final = 10.0
_SILENT: Final = AccessLog()
_VISIBLE: Final = re.compile(r"[!-~]*").fullmatch
MOST_SKIPPED: Final = 100
_Item = TypeVar("_Item")
_Configured = TypeVar("_Configured", Route, Upstream)


class Binding:
    """A route with everything that a request on it needs, so that no step has to look anything up.

    What is None or empty is not asked for by the route, and costs its requests nothing.
    """

    __slots__ = (
        "access_log",
        "answer_edits",
        "body_bytes",
        "budget",
        "choices",
        "cors",
        "direct",
        "gate",
        "host",
        "keeps",
        "mirror",
        "policies",
        "repeatable",
        "request_edits",
        "retry_on",
        "route",
        "scopes",
        "shares",
        "unwanted",
    )

    def __init__(self, route: Route, balancer: Balancer, cors: Cors) -> None:
        self.route = route
        self.scopes = scopes_of(route)
        self.shares = balancer.shares(route.tenant, [target for target in route.targets if not _is_choice(target)])
        self.choices = tuple(_choices(route, balancer))
        self.policies: tuple[Policy, ...] = ()
        self.request_edits = edits_of(route.request_headers)
        self.answer_edits = edits_of(route.response_headers)
        self.host = route.rewrite.host.encode()
        if not _VISIBLE(route.redirect.host + route.redirect.path + route.rewrite.host):
            raise ValueError("Its redirect or rewrite leads to what is no address.")
        self.cors = of_route(route) or cors
        self.body_bytes = route.limits.body_bytes
        self.gate: Gate | None = None
        self.access_log = None if route.access_log == _SILENT else route.access_log
        self.mirror = _reflection(route, balancer)
        retry = route.retry
        self.repeatable = _set(retry.methods)
        self.retry_on = _set(retry.on)
        self.keeps = retry.body_bytes if route.retries else 0
        self.unwanted = _set(retry.statuses) if route.retries and "status" in retry.on else NO_STATUSES
        self.budget: RetryBudget | None = None
        self.direct = not (
            (self.choices or self.mirror or self.unwanted)
            or (route.redirect.status or route.hedge.after or route.timeouts.total or route.limits.concurrent)
        )
        """Whether a request can do without a task of its own: nothing has to run beside it."""


@lru_cache(maxsize=1024)
def _set(items: tuple[_Item, ...]) -> frozenset[_Item]:
    """One for all routes that say the same."""
    return frozenset(items)


def _is_choice(target: Target) -> bool:
    return target.header is not None or target.cookie is not None


def _choices(route: Route, balancer: Balancer) -> Iterator[Choice]:
    for target in route.targets:
        if _is_choice(target):
            yield Choice(target, balancer.shares(route.tenant, [target])[0])


def _reflection(route: Route, balancer: Balancer) -> Reflection | None:
    mirror = route.mirror
    if not mirror.service or not mirror.sample:
        return None
    share: Share = balancer.shares(route.tenant, [Target(mirror.service)])[0]
    return Reflection(share, mirror.sample, mirror.body_bytes)


class Compiled:
    """A table, taken apart beside the loop. `skipped` is what could not be, each with the sentence why."""

    def __init__(self, body: bytes, pepper: str = "") -> None:
        table, self.skipped = decode(body)
        self.table = msgspec.structs.replace(
            table,
            routes=tuple(self._sound(table.routes, _defect)),
            upstreams=tuple(self._sound(table.upstreams, _defect_of_upstream)),
        )
        self.router = Router(self.table)
        if self.router.skipped:
            self.skipped += self.router.skipped
            served = self.router.served
            routes = tuple(route for route in self.table.routes if route.id in served)
            self.table = msgspec.structs.replace(self.table, routes=routes)
        self.policies = dict(self._policies())
        self.secure = dict(self._secure(pepper))
        self.routes = {route.id: route for route in self.table.routes}
        self.gated = [route for route in self.table.routes if route.limits.concurrent]
        self.wanted = wanted_by(self.table.routes)
        self.reads_credentials = reads_credentials(self.table)
        self.services = {(tenant, target.service) for tenant, target in self.wanted}

    def _sound(self, parts: Iterable[_Configured], defect: Callable[[_Configured], str]) -> Iterator[_Configured]:
        for each in parts:
            if not (why := defect(each)):
                yield each
            elif isinstance(each, Route):
                self._skip(each.tenant, each.name, f"Route {each.name} is left out: {why}")
            else:
                self._skip(each.tenant, each.service, f"Upstream {each.service} is left out: {why}")

    def _skip(self, tenant: str, name: str, why: str) -> None:
        self.skipped.append(Skipped(tenant, name, f"{why.rstrip('.')}."))

    def _policies(self) -> Iterator[tuple[tuple[str, str], Policy]]:
        for limit in self.table.rate_limits:
            try:
                yield (limit.tenant, limit.name), Policy(limit)
            except (ValueError, ArithmeticError) as error:
                self._skip(limit.tenant, limit.name, f"Rate-limit policy {limit.name} is left out: {error}")

    def _secure(self, pepper: str) -> Iterator[tuple[Pair, Secure]]:
        """How TLS is spoken to the services that say so. Where they say it badly, as to any other: verified."""
        for each in self.table.upstreams:
            if each.tls == Tls():
                continue
            try:
                key = unseal(pepper, TLS_KEYS, each.tls_key) if each.tls_key else ""
                yield (each.tenant, each.service), secure(each.tls, key)
            except ValueError as error:
                self._skip(each.tenant, each.service, f"Upstream {each.service}: {error}")
                yield (each.tenant, each.service), usual()


class Bindings(dict[int, Binding]):
    """By the route's id, each made when it is first asked for: no new table has to wait for those that nobody uses.

    `failed` are those that could not be made. Their routes answer for themselves: to leave them out now would give
    their requests to others.
    """

    __slots__ = ("_bind", "_routes", "failed")

    def __init__(self, routes: Mapping[int, Route], bind: Callable[[Route], Binding]) -> None:
        self._routes = routes
        self._bind = bind
        self.failed: dict[int, Skipped] = {}

    def __missing__(self, id: int) -> Binding:
        """Raises Problem: route_unusable."""
        route = self._routes[id]
        if id not in self.failed:
            try:
                binding = self[id] = self._bind(route)
            except Exception as error:  # whatever it is, no other route is to suffer from it
                sentence = f"Route {route.name} cannot be served: {error!r}"
                logger.exception(sentence)
                self.failed[id] = Skipped(route.tenant, route.name, sentence)
            else:
                return binding
        raise Problem("route_unusable", f"Route {route.name} cannot be served as it is; the gateway's log says why.")


Policies = Mapping[tuple[str, str], Policy]
"""By tenant and name."""


class Here:
    """One state of the world. A request keeps the one it began with."""

    __slots__ = ("bindings", "policies", "reads_credentials", "revision", "router")

    def __init__(
        self, revision: int, router: Router, bindings: Bindings, policies: Policies, *, reads_credentials: bool = False
    ) -> None:
        self.revision = revision
        self.router = router
        self.bindings = bindings
        self.policies = policies
        self.reads_credentials = reads_credentials


class Live:
    """Holds `current`. What is counted (breakers, budgets, who is inside) outlives every swap, as connections do."""

    def __init__(self, env: Env, balancer: Balancer, guard: Guard, admission: Admission, cors: Cors) -> None:
        self._balancer = balancer
        self._guard = guard
        self._admission = admission
        self._cors = cors
        self._default_limit = env.default_rate_limit
        self._default_policies: dict[str, Policy] = {}
        self._budgets: dict[int, tuple[tuple[float, float], RetryBudget]] = {}
        self._skipped: tuple[Skipped, ...] = ()
        self.loaded = False
        self.current = Here(0, Router(RoutingTable()), Bindings({}, partial(self._bind, {})), {})

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What cannot be served of the current table, the first of it."""
        return (*self.current.bindings.failed.values(), *self._skipped)[:MOST_SKIPPED]

    def swap(self, compiled: Compiled) -> None:
        table = compiled.table
        self._balancer.adopt(table.upstreams, compiled.wanted, compiled.secure)
        self._guard.adopt(table.revision, table.upstreams, compiled.services)
        self._admission.adopt(compiled.gated, table.upstreams)
        self._budgets = {id: budget for id, budget in self._budgets.items() if id in compiled.routes}
        bindings = Bindings(compiled.routes, partial(self._bind, compiled.policies))
        self.current = Here(
            table.revision,
            compiled.router,
            bindings,
            compiled.policies,
            reads_credentials=compiled.reads_credentials,
        )
        self.loaded = True
        self._skipped = tuple(compiled.skipped)
        for each in compiled.skipped:
            logger.warning(each.sentence)
        logger.info("serving revision %d with %d routes", table.revision, len(compiled.routes))

    def _bind(self, policies: Policies, route: Route) -> Binding:
        binding = Binding(route, self._balancer, self._cors)
        binding.policies = self._policies(route, policies)
        binding.gate = self._admission.route(route.id)
        binding.budget = self._budget(route) if route.retries else None
        return binding

    def _policies(self, route: Route, policies: Policies) -> tuple[Policy, ...]:
        named = (policies.get((route.tenant, name)) for name in route.rate_limits)
        return tuple(policy for policy in named if policy) or self._default(route.tenant)

    def _default(self, tenant: str) -> tuple[Policy, ...]:
        rate = self._default_limit
        if not rate:
            return ()
        if tenant not in self._default_policies:
            limit = RateLimit(tenant, "default", rate, rate, "key")
            self._default_policies[tenant] = Policy(limit, built_in=True)
        return (self._default_policies[tenant],)

    def _budget(self, route: Route) -> RetryBudget:
        terms = (route.retry.budget, route.retry.budget_minimum)
        known = self._budgets.get(route.id)
        if known is None or known[0] != terms:
            share, minimum = terms
            known = self._budgets[route.id] = terms, RetryBudget(share, int(minimum * BUDGET_SECONDS), BUDGET_SECONDS)
        return known[1]


def _defect_of_upstream(upstream: Upstream) -> str:
    try:
        if upstream.breaker is not None:
            CircuitBreaker(upstream.breaker)
    except (ValueError, ArithmeticError, MemoryError) as error:
        return f"Its breaker cannot be made: {error}"
    return ""


def _defect(route: Route) -> str:
    if route.targets:
        return check_targets(route.targets)
    return "" if route.redirect.status else "It has no target."
