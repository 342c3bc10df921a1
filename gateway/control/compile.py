"""Rows → RoutingTable. A row that cannot serve is left out and named; the others go on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, NamedTuple

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q

from anumate_integration_service import breaker
from gateway.control import documents
from gateway.control.document_rules import check_new_path
from gateway.control.rules import check_by, check_condition, check_host, check_path, check_version
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteLimit, RouteTarget, Upstream
from gateway.proxy import table
from gateway.proxy.policies import Address, Document, Pair
from registry.models import ApiKey

_COPIED: Final = (
    "id",
    "name",
    "path",
    "path_type",
    "priority",
    "strip_prefix",
    "auth_required",
    "timeout_seconds",
    "retries",
)
"""Columns of a route that the table takes as they are."""
_NAMED: Final = ("created_at", "tenant__name", "rate_limit_policy__name")
_OF_TARGETS: Final = ("weight", "version", "tags", "header", "cookie")
_OF_UPSTREAMS: Final = ("tls_key", "load_balancing", "slow_start_seconds", "panic_threshold", "zone", "concurrent")
_LISTS: Final = ("hosts", "methods", "headers", "query", "scopes")


class Skipped(NamedTuple):
    """A row that is not in the table, and why."""

    kind: str
    tenant: str
    name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind} {self.tenant}/{self.name} is left out: {self.sentence}"


class Compiled(NamedTuple):
    table: table.RoutingTable
    skipped: list[Skipped]


def compile_table(revision: int) -> Compiled:
    """The table of the rows as they are now. Five queries, however many rows."""
    skipped: list[Skipped] = []
    compiled = table.RoutingTable(
        revision=revision,
        routes=tuple(_routes(skipped)),
        upstreams=tuple(_upstreams(skipped)),
        rate_limits=tuple(_rate_limits(skipped)),
    )
    return Compiled(compiled, skipped)


def _routes(skipped: list[Skipped]) -> Iterator[table.Route]:
    targets: dict[int, list[table.Target]] = defaultdict(list)
    pointing = RouteTarget.objects.filter(route__enabled=True, route__tenant__active=True).order_by("id")
    for route, *target in pointing.values_list("route_id", "service__name", *_OF_TARGETS):
        targets[route].append(compile_target(*target))
    limits: dict[int, list[str]] = defaultdict(list)
    for route, policy in RouteLimit.objects.order_by("id").values_list("route_id", "policy__name"):
        limits[route].append(policy)
    rows = Route.objects.filter(enabled=True, tenant__active=True).order_by("id")
    # Values, not model instances: making those would be most of the work of a large table.
    for row in rows.values(
        *_COPIED, "created_at", "tenant__name", "rate_limit_policy__name", *_LISTS, *Route.documents
    ):
        first = [name] if (name := row["rate_limit_policy__name"]) else []
        try:
            yield compile_route(row, targets[row["id"]], dict.fromkeys([*first, *limits[row["id"]]]))
        except ValidationError as error:
            skipped.append(Skipped("route", row["tenant__name"], row["name"], " ".join(error.messages)))
        except (KeyError, TypeError):
            sentence = "A list of it does not hold what it should."
            skipped.append(Skipped("route", row["tenant__name"], row["name"], sentence))


def compile_route(row: Mapping[str, Any], targets: Sequence[table.Target], limits: Iterable[str] = ()) -> table.Route:
    """One route as the data plane needs it.

    Raises:
        ValidationError: it cannot serve; the messages say why.
    """
    check_path(row["path"], row["path_type"])
    for host in row["hosts"]:
        check_host(host)
    for pair in row["headers"]:
        check_condition(pair["name"], pair["value"])
    for target in targets:
        if target.version:
            check_version(target.version)
    if not any(target.weight for target in targets) and not row["redirect"]:
        raise ValidationError("No target of it has a weight above 0.")
    told = _documents(Route.documents, row)
    for name in ("rewrite", "redirect"):
        check_new_path(row["path"], row["path_type"], row[name])
    return table.Route(
        **{name: row[name] for name in _COPIED},
        tenant=row["tenant__name"],
        targets=tuple(targets),
        hosts=tuple(row["hosts"]),
        methods=tuple(row["methods"]),
        headers=_pairs(row["headers"]),
        query=_pairs(row["query"]),
        scopes=tuple(row["scopes"]),
        created=row["created_at"].timestamp(),
        rate_limits=tuple(limits),
        **told,
    )


def _documents(kinds: Mapping[str, type[Document]], row: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: the rest are the table's defaults, which cost no place in it."""
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        if not row[name]:
            continue
        try:
            found[name] = documents.read(kind, row[name])
        except documents.Misread as error:
            raise ValidationError(f"{name}: {error.messages[0]}") from None
    return found


def compile_target(
    service: str, weight: int, version: str, tags: Sequence[str], header: Mapping[str, str] | None, cookie: Any
) -> table.Target:
    pairs = [Pair(pair["name"], pair["value"]) if pair else None for pair in (header, cookie)]
    return table.Target(service, weight, version, tuple(tags), *pairs)


def _pairs(pairs: Iterable[Mapping[str, str]]) -> tuple[Pair, ...]:
    return tuple(Pair(name=pair["name"], value=pair["value"]) for pair in pairs)


def _upstreams(skipped: list[Skipped]) -> Iterator[table.Upstream]:
    rows = Upstream.objects.filter(service__tenant__active=True).select_related("service__tenant", "breaker_policy")
    for row in rows.order_by("id"):
        tenant, name = row.service.tenant.name, row.service.name
        try:
            yield compile_upstream(row)
        except ValidationError as error:
            skipped.append(Skipped("upstream", tenant, name, " ".join(error.messages)))


def compile_upstream(row: Upstream) -> table.Upstream:
    """Raises ValidationError where it cannot serve."""
    return table.Upstream(
        tenant=row.service.tenant.name,
        service=row.service.name,
        breaker=_breaker(row.breaker_policy) if row.breaker_policy else None,
        addresses=documents.read_all(Address, row.addresses),
        **{name: getattr(row, name) for name in _OF_UPSTREAMS},
        **_documents(Upstream.documents, vars(row)),
    )


def _breaker(row: BreakerPolicy) -> breaker.BreakerPolicy:
    return breaker.BreakerPolicy(**{field.name: getattr(row, field.name) for field in fields(breaker.BreakerPolicy)})


def _rate_limits(skipped: list[Skipped]) -> Iterator[table.RateLimit]:
    """Only those that a route or a key uses: a worker keeps a bucket for each."""
    of_keys = ApiKey.objects.filter(tenant=OuterRef("tenant"), rate_limit_policy=OuterRef("name"), revoked_at=None)
    used = Q(routes__enabled=True) | Q(further_routes__route__enabled=True) | Exists(of_keys)
    rows = RateLimitPolicy.objects.filter(used, tenant__active=True).select_related("tenant").distinct().order_by("id")
    for row in rows:
        try:
            check_by(row.by)
        except ValidationError as error:
            skipped.append(Skipped("rate-limit policy", row.tenant.name, row.name, " ".join(error.messages)))
            continue
        yield table.RateLimit(tenant=row.tenant.name, name=row.name, rate=row.rate, burst=row.burst, by=row.by)
