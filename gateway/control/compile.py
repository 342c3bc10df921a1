"""Rows → RoutingTable. A row that cannot serve is left out and named; the others go on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.core.exceptions import ValidationError
from django.db.models import Q

from gateway.control.rules import check_by, check_header, check_host, check_path, check_version
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteTarget, Upstream
from gateway.proxy import table

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
    """The table of the rows as they are now. Four queries, however many rows."""
    skipped: list[Skipped] = []
    compiled = table.RoutingTable(
        revision=revision,
        routes=tuple(_routes(skipped)),
        upstreams=tuple(_upstreams()),
        rate_limits=tuple(_rate_limits(skipped)),
    )
    return Compiled(compiled, skipped)


def _routes(skipped: list[Skipped]) -> Iterator[table.Route]:
    targets: dict[int, list[table.Target]] = defaultdict(list)
    pointing = RouteTarget.objects.filter(route__enabled=True, route__tenant__active=True).order_by("id")
    for route, service, weight, version in pointing.values_list("route_id", "service__name", "weight", "version"):
        targets[route].append(table.Target(service, weight, version))
    rows = Route.objects.filter(enabled=True, tenant__active=True).order_by("id")
    # Values, not model instances: making those would be most of the work of a large table.
    for row in rows.values(*_COPIED, "created_at", "tenant__name", "rate_limit_policy__name", *_LISTS):
        try:
            yield compile_route(row, targets[row["id"]])
        except ValidationError as error:
            skipped.append(Skipped("route", row["tenant__name"], row["name"], " ".join(error.messages)))
        except (KeyError, TypeError):
            sentence = "A list of it does not hold what it should."
            skipped.append(Skipped("route", row["tenant__name"], row["name"], sentence))


def compile_route(row: Mapping[str, Any], targets: Sequence[table.Target]) -> table.Route:
    """One route as the data plane needs it.

    Raises:
        ValidationError: it cannot serve; the messages say why.
    """
    check_path(row["path"], row["path_type"])
    for host in row["hosts"]:
        check_host(host)
    for pair in row["headers"]:
        check_header(pair["name"], pair["value"])
    for target in targets:
        if target.version:
            check_version(target.version)
    if not any(target.weight for target in targets):
        raise ValidationError("No target of it has a weight above 0.")
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
        rate_limit=row["rate_limit_policy__name"] or "",
    )


def _pairs(pairs: Iterable[Mapping[str, str]]) -> tuple[table.Pair, ...]:
    return tuple(table.Pair(name=pair["name"], value=pair["value"]) for pair in pairs)


def _upstreams() -> Iterator[table.Upstream]:
    rows = Upstream.objects.filter(service__tenant__active=True).select_related("service__tenant", "breaker_policy")
    for row in rows.order_by("id"):
        yield table.Upstream(
            tenant=row.service.tenant.name,
            service=row.service.name,
            load_balancing=row.load_balancing,  # type: ignore[arg-type]
            breaker=_breaker(row.breaker_policy) if row.breaker_policy else None,
        )


def _breaker(row: BreakerPolicy) -> table.Breaker:
    return table.Breaker(**{name: getattr(row, name) for name in table.Breaker.__struct_fields__})


def _rate_limits(skipped: list[Skipped]) -> Iterator[table.RateLimit]:
    """Only those that a route uses: a worker keeps a bucket for each."""
    used = Q(routes__enabled=True)
    rows = RateLimitPolicy.objects.filter(used, tenant__active=True).select_related("tenant").distinct().order_by("id")
    for row in rows:
        try:
            check_by(row.by)
        except ValidationError as error:
            skipped.append(Skipped("rate-limit policy", row.tenant.name, row.name, " ".join(error.messages)))
            continue
        yield table.RateLimit(tenant=row.tenant.name, name=row.name, rate=row.rate, burst=row.burst, by=row.by)
