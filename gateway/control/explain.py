"""Why a request goes where it goes: asked of the same matcher, and the same rules, that the workers go by."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from django.conf import settings

from anumate.lib.problem import KINDS, Problem
from anumate.lib.redis import UNAVAILABLE
from gateway.control.breakers import left_out_of, skipped_of
from gateway.control.callers import Admission, judged
from gateway.control.compile import compile_table
from gateway.models import Upstream
from gateway.proxy.canary import Asking
from gateway.proxy.cors import Cors, asked_method, of_route
from gateway.proxy.entitlement import require_websockets
from gateway.proxy.exchange import Exchange, Scope
from gateway.proxy.fields import is_loop
from gateway.proxy.options import AS_A_WHOLE, last_hop
from gateway.proxy.policies import Document
from gateway.proxy.reports import LeftOut
from gateway.proxy.rewriting import location, without_keys
from gateway.proxy.router import Explained, Router, Rule
from gateway.proxy.selection import Selection
from gateway.proxy.table import RateLimit, Route, RoutingTable, Target
from gateway.services import host_owner
from registry.live.instances import Instance
from registry.live.keys import KeyRecord
from registry.selectors import catalog

Headers = Sequence[tuple[bytes, bytes]]

OWN_PATHS: Final = ("/-/livez", "/-/readyz", "/-/metrics")
_ABOUT: Final = "No route takes it, so the gateway says what it is."


class Candidate(NamedTuple):
    """An instance of a target's service: whether a request may come to it, and why not."""

    instance_id: str
    version: str
    eligible: bool
    sentence: str
    left_out: int = 0
    """How many workers of the gateway give it no requests for now, because of what they saw of it."""


class Destination(NamedTuple):
    """A target. `chosen`: the request asks for it, or weight decides and it has some."""

    service: str
    weight: int
    version: str
    tags: tuple[str, ...]
    chosen: bool
    load_balancing: str
    instances: list[Candidate] | None
    """None while the store is away."""


class Explanation(NamedTuple):
    """`verdicts` has a line for every route of the tenant, in order of precedence; none where the request is not for
    them. `status` is that of the gateway's own answer, None where a service answers; `code` is a refusal's. The rest is
    None where no route takes the request.
    """

    tenant: str
    route: str | None
    sentence: str
    upstream_path: str | None
    targets: tuple[Target, ...]
    verdicts: list[Explained]
    skipped: list[str]
    status: int | None = None
    code: str | None = None
    upstream_host: str | None = None
    redirect: str | None = None
    admission: Admission | None = None
    rate_limits: list[RateLimit] | None = None
    policies: dict[str, Any] | None = None
    destinations: list[Destination] | None = None


def explain(
    tenant: str,
    *,
    method: str,
    host: str,
    target: str,
    headers: Sequence[tuple[str, str]] = (),
    key: str = "",
    address: str = "",
) -> Explanation:
    """What would become of a request. `target` is path and query, as on the request line; `key` an API key or its
    public id, else the one counts that the request brings; `address` where the request comes from.

    Raises:
        Problem: malformed_request, when the gateway would not read such a request.
    """
    x = _exchange(method, host, target, headers, address)
    try:
        x.read()
    except Problem as problem:
        if problem.code != "method_not_allowed":
            raise
        return _refused(tenant, problem)
    named = host or next((value for name, value in headers if name.lower() == "host"), "")
    if named and host_owner()(x.host) != tenant:
        return _refused(tenant, Problem("route_not_found", f"Requests for {x.host} do not come to tenant {tenant}."))
    compiled = compile_table(0)
    router = Router(compiled.table)
    seen = _Seen(
        verdicts=router.explain(tenant, x.host, method, x.path.matched, x.fields.all, x.query),
        skipped=list(
            dict.fromkeys(
                [
                    *(str(each) for each in compiled.skipped if each.tenant == tenant),
                    *(each.sentence for each in router.skipped if each.tenant == tenant),
                    *_skipped_by_workers(tenant),
                ]
            )
        ),
    )
    try:
        if own := _own_answer(x, router, tenant):
            return _answered(tenant, own, seen)
        rule = _matched(x, router, tenant)
    except Problem as problem:
        if problem.code == "route_not_found" and x.path.matched == "/" and method in ("GET", "HEAD"):
            return _answered(tenant, _Own(200, _ABOUT), seen)
        return _refused(tenant, problem, seen)
    return _taken(rule, x, named, key, compiled.table, seen)


def _skipped_by_workers(tenant: str) -> list[str]:
    try:
        return skipped_of(tenant)
    except UNAVAILABLE:
        return []


class _Seen(NamedTuple):
    """What the routes say to the request, and those that are left out."""

    verdicts: list[Explained]
    skipped: list[str]


def _matched(x: Exchange, router: Router, tenant: str) -> Rule:
    """The rule that takes the request.

    Raises:
        Problem: as the data plane.
    """
    if is_loop(x.known.get(b"via", b"")):
        raise Problem("loop_detected", "The request has been through this gateway before.")
    rule = router.match(tenant, x.host, x.method, x.path.matched, x.fields.all, x.query)
    x.target = rule.rewriting.path(x.path)
    if x.handshake is not None and not rule.route.redirect.status:
        require_websockets(rule.route)
    return rule


def _refused(tenant: str, problem: Problem, seen: _Seen | None = None) -> Explanation:
    return _answered(tenant, _Own(problem.status, problem.detail, problem.code), seen or _Seen([], []))


def _answered(tenant: str, own: _Own, seen: _Seen) -> Explanation:
    """No route gets it."""
    return Explanation(
        tenant, None, own.sentence, None, (), _untaken(seen.verdicts), seen.skipped, own.status, own.code
    )


def _taken(rule: Rule, x: Exchange, host: str, key: str, table: RoutingTable, seen: _Seen) -> Explanation:
    route = rule.route
    redirect = _redirect(rule, x)  # before the request's key is cut off
    admission, client = judged(route, x, key)
    return Explanation(
        tenant=route.tenant,
        route=route.name,
        sentence=next(verdict.sentence for verdict in seen.verdicts if verdict.takes_it),
        upstream_path=None if redirect else x.target,
        targets=route.targets,
        verdicts=seen.verdicts,
        skipped=seen.skipped,
        status=KINDS[admission.code].status if admission.code else route.redirect.status or None,
        code=admission.code,
        upstream_host=route.rewrite.host or host,
        redirect=redirect,
        admission=admission,
        rate_limits=_rate_limits(table, route, client),
        policies=_policies(route),
        destinations=list(_destinations(route, x.fields.all)),
    )


def _exchange(method: str, host: str, target: str, headers: Sequence[tuple[str, str]], address: str) -> Exchange:
    """The request as a worker gets it."""
    raw, _, query = target.encode().partition(b"?")
    fields = [(name.lower().encode(), value.strip(" \t").encode()) for name, value in headers]
    if host or not any(name == b"host" for name, _ in fields):
        fields.insert(0, (b"host", host.strip(" \t").encode() or b"localhost"))
    if any(byte <= 0x20 or byte == 0x7F for byte in query):
        raise Problem("malformed_request", "The query holds a space or a control character.")
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw.decode(),
        "raw_path": raw,
        "query_string": query,
        "client": (address, 0),
        "headers": fields,
    }
    return Exchange.of_scope(scope, 0.0)


class _Own(NamedTuple):
    status: int
    sentence: str
    code: str | None = None


def _own_answer(x: Exchange, router: Router, tenant: str) -> _Own | None:
    """What the gateway answers by itself, before it looks for a route.

    Raises:
        Problem: not_found.
    """
    if asked := asked_method(x):
        rules = Cors.anywhere(settings.ENV.cors_origins)
        with contextlib.suppress(Problem):
            rule = router.match(tenant, x.host, asked, x.path.matched, x.fields.all, x.query)
            rules = of_route(rule.route) or rules
        if rules.enabled:
            return _Own(204, "The gateway answers a browser's preflight itself.")
    path = x.path.matched
    if path in OWN_PATHS or (path == AS_A_WHOLE and x.method == "OPTIONS"):
        return _Own(204 if path == AS_A_WHOLE else 200, "The gateway answers for itself here, and not for a service.")
    if path.startswith("/-/"):
        raise Problem("not_found", "Below /-/ are the gateway's own addresses, and no route's.")
    if x.method == "OPTIONS" and last_hop(x):
        return _Own(204, "Max-Forwards is 0, so the gateway answers itself.")
    return None


def _untaken(verdicts: list[Explained]) -> list[Explained]:
    """None of them gets the request, though one would have taken it."""
    return [
        each._replace(takes_it=False, sentence="It would take the request, which does not come so far.")
        if each.takes_it
        else each
        for each in verdicts
    ]


def _redirect(rule: Rule, x: Exchange) -> str | None:
    redirect = rule.route.redirect
    if not redirect.status:
        return None
    authority, path = x.known[b"host"].decode("latin-1"), rule.rewriting.redirected(x.path)
    query, _ = without_keys(rule.route, x.query)
    return location(redirect, path, query, scheme=x.scheme, authority=authority, host=x.host).decode("latin-1")


def _rate_limits(table: RoutingTable, route: Route, client: KeyRecord | None) -> list[RateLimit]:
    """Those that the request needs a token of, as the data plane puts them together."""
    known = {each.name: each for each in table.rate_limits if each.tenant == route.tenant}
    found = [known[name] for name in route.rate_limits if name in known]
    if not found and (rate := settings.ENV.default_rate_limit):
        found = [RateLimit(route.tenant, "default", rate, rate, "key")]
    own = known.get(client.rate_limit_policy) if client is not None else None
    return found if own is None else [own, *(each for each in found if each.by != "key")]


def _policies(route: Route) -> dict[str, Any]:
    """What the route says beyond the plain case, and its times."""
    said = {name: getattr(route, name) for name in route.__struct_fields__}
    documents = {
        name: msgspec.to_builtins(value)
        for name, value in said.items()
        if isinstance(value, Document) and value != type(value)()
    }
    return {"timeout_seconds": route.timeout_seconds, "retries": route.retries, **documents}


def _destinations(route: Route, headers: Headers) -> Iterator[Destination]:
    strategies = dict(
        Upstream.objects.filter(service__tenant__name=route.tenant).values_list("service__name", "load_balancing")
    )
    asking = [Asking(target) for target in route.targets]
    asked = next((number for number, each in enumerate(asking) if each.asked_for(headers)), None)
    for number, target in enumerate(route.targets):
        by_weight = asked is None and not asking[number].conditional and target.weight > 0
        yield Destination(
            target.service,
            target.weight,
            target.version,
            target.tags,
            chosen=asked == number or by_weight,
            load_balancing=strategies.get(target.service, Upstream.Strategy.ROUND_ROBIN.value),
            instances=_instances(route.tenant, target),
        )


def _instances(tenant: str, target: Target) -> list[Candidate] | None:
    now, selection = time.time(), Selection(target)
    try:
        instances = catalog().instances(tenant, target.service)
        left_out = left_out_of(tenant, target.service)
    except UNAVAILABLE:
        return None
    found = []
    for instance in instances:
        id, version = instance.key.id, instance.document.version
        if why := _unfit(instance, now) or selection.why_not(instance):
            found.append(Candidate(id, version, False, why))
        elif words := left_out.get(id):
            found.append(Candidate(id, version, True, _spared(words), len(words)))
        else:
            found.append(Candidate(id, version, True, "It may get the request."))
    return found


def _spared(words: Sequence[LeftOut]) -> str:
    who = "One worker of the gateway leaves" if len(words) == 1 else f"{len(words)} workers of the gateway leave"
    longest = max(words, key=lambda each: each.seconds)
    return f"{who} it out, for {longest.seconds:.0f} s more at most: {longest.reason}"


def _unfit(instance: Instance, now: float) -> str:
    if (state := instance.state(now)) != "enabled":
        return f"Its state is {state}."
    if instance.health == "unhealthy":
        return "It is unhealthy."
    if not any(each.protocol in ("http", "https") for each in instance.document.endpoints.values()):
        return "It has no endpoint that speaks HTTP."
    return ""
