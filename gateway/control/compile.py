"""Rows → RoutingTable. A row that cannot serve is left out and named; the others go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db.models import Q

from gateway.control.rules import check_by, check_header, check_host, check_path, check_version
from gateway.models import BreakerPolicy, RateLimitPolicy, Route, RouteTarget, Upstream
from gateway.proxy import table


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
    rows = (
        Route.objects.filter(enabled=True, tenant__active=True)
        .select_related("tenant", "rate_limit_policy")
        .prefetch_related("targets__service")
        .order_by("id")
    )
    for row in rows:
        try:
            yield compile_route(row, row.targets.all())
        except ValidationError as error:
            skipped.append(Skipped("route", row.tenant.name, row.name, " ".join(error.messages)))
        except (AttributeError, KeyError, TypeError):
            skipped.append(Skipped("route", row.tenant.name, row.name, "A list of it does not hold what it should."))


def compile_route(row: Route, targets: Iterable[RouteTarget]) -> table.Route:
    """One route as the data plane needs it.

    Raises:
        ValidationError: it cannot serve; the messages say why.
    """
    check_path(row.path, row.path_type)
    for host in row.hosts:
        check_host(host)
    for pair in row.headers:
        check_header(pair["name"], pair["value"])
    compiled = tuple(compile_target(target) for target in targets)
    if not any(target.weight for target in compiled):
        raise ValidationError("No target of it has a weight above 0.")
    return table.Route(
        id=row.pk or 0,
        name=row.name,
        tenant=row.tenant.name,
        targets=compiled,
        hosts=tuple(row.hosts),
        path=row.path,
        path_type=row.path_type,  # type: ignore[arg-type]  # the choices of the model are the literals of the table
        methods=tuple(row.methods),
        headers=_pairs(row.headers),
        query=_pairs(row.query),
        priority=row.priority,
        created=row.created_at.timestamp(),
        strip_prefix=row.strip_prefix,
        auth_required=row.auth_required,
        scopes=tuple(row.scopes),
        rate_limit=row.rate_limit_policy.name if row.rate_limit_policy else "",
        timeout_seconds=row.timeout_seconds,
        retries=row.retries,
    )


def compile_target(row: RouteTarget) -> table.Target:
    check_version(row.version)
    return table.Target(service=row.service.name, weight=row.weight, version=row.version)


def _pairs(pairs: list[dict[str, str]]) -> tuple[table.Pair, ...]:
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
