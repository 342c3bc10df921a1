"""What doctor makes of what it saw, and what a watcher makes of two answers; nothing is asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from anumate_integration_service.cli import show, times
from anumate_integration_service.cli.errors import NOT_ALLOWED, UNREACHABLE
from anumate_integration_service.cli.examine import Finding, findings, summary, worst
from anumate_integration_service.cli.follow import changes
from anumate_integration_service.cli.visit import Refused, Visit

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def instance(name: str = "orders", *, status: str = "healthy", state: str = "enabled") -> dict[str, str]:
    return {"name": name, "instance_id": f"{name}-1", "status": status, "state": state}


def check(checked_at: str | None, interval: float = 5.0) -> dict[str, Any]:
    return {"services": [{"instances": [{"checks": [{"checked_at": checked_at, "interval": interval}]}]}]}


def route(service: str, *, enabled: bool = True) -> dict[str, Any]:
    return {"name": "a-route", "enabled": enabled, "targets": [{"service": service}]}


def rows(*results: Any) -> dict[str, Any]:
    return {"results": list(results)}


def key(public_id: str = "own", **fields: Any) -> dict[str, Any]:
    return {
        "public_id": public_id,
        "name": "the key",
        "scopes": ["admin"],
        "expires_at": None,
        "revoked_at": None,
    } | fields


def seen(skew: float | None = 0.0, gateway_given: bool = True, **answers: Any) -> Visit:
    """A visit to an installation that is well, but for `answers`."""
    well = {
        "ready": {"status": "ready"},
        "parts": {"parts": {"database": "ok", "store": "ok"}, "routing_table": {"published": 7, "served": [7, 7]}},
        "gateway": {"status": "ready", "redis": "connected", "table_revision": 7},
        "services": {"services": [instance()]},
        "eligible": {"services": [instance()]},
        "health": check(ago(2)),
        "breakers": rows(),
        "routes": rows(route("orders")),
        "keys": rows(key()),
    }
    return Visit("http://here", "http://gate", gateway_given, "own", NOW, skew, well | answers)


def told(visit: Visit) -> list[Finding]:
    """What is not well."""
    return [each for each in findings(visit) if each.status != "ok"]


def one(visit: Visit) -> tuple[str, str]:
    """The only thing that is not well, and how bad; it says what to do."""
    [finding] = told(visit)
    assert finding.next_step
    return finding.status, finding.sentence


def test_a_well_installation_has_nothing_to_mend() -> None:
    found = findings(seen())
    assert worst(found) == "ok"
    assert summary(found) == "Everything that can be seen from here is well."


def test_a_control_plane_that_is_away_is_the_first_problem() -> None:
    found = told(seen(ready=Refused("http://here cannot be reached", UNREACHABLE)))
    assert [(each.status, each.about) for each in found] == [("problem", "control plane")]
    assert summary(found) == "1 problem."


@pytest.mark.parametrize("part", ["database", "store"])
def test_a_part_that_is_away_is_a_problem(part: str) -> None:
    parts = {"database": "ok", "store": "ok"} | {part: "away"}
    assert one(seen(parts={"parts": parts})) == ("problem", "The control plane does not reach it.")


def test_tables_that_cannot_be_read_are_a_problem_but_a_missing_scope_is_not() -> None:
    status, sentence = one(seen(routes=Refused("It failed. (internal_error)", 1)))
    assert (status, "its rows cannot be read" in sentence) == ("problem", True)
    refused = Refused("The key lacks gateway:read. (scope_missing)", NOT_ALLOWED)
    assert [each.about for each in told(seen(routes=refused))] == []


def test_a_key_that_is_not_known_is_a_problem() -> None:
    refused = Refused("This API key is not known, or was revoked. (api_key_invalid)", NOT_ALLOWED)
    status, sentence = one(seen(services=refused, keys=refused))
    assert (status, sentence) == ("problem", refused.sentence)


def test_a_key_that_may_little_is_a_warning_that_names_what_it_lacks() -> None:
    refused = Refused("No. (scope_missing)", NOT_ALLOWED)
    status, sentence = one(seen(health=refused, keys=refused))
    assert (status, sentence) == (
        "warning",
        "The key may registry:read, gateway:read; it lacks health:read, admin for the rest.",
    )


def test_checks_that_are_overdue_say_that_worker_or_beat_is_away() -> None:
    assert one(seen(health=check(ago(100)))) == ("problem", "The last health check was made 100 s ago.")
    assert told(seen(health=check(ago(100), interval=60))) == []
    assert told(seen(health=check(None))) == []
    # By the platform's clock it was just made.
    assert {each.about for each in told(seen(skew=-100.0, health=check(ago(100))))} == {"clock"}


@pytest.mark.parametrize(("skew", "status"), [(5.0, "warning"), (-5.0, "warning"), (31.0, "problem")])
def test_clocks_that_differ_are_told_of(skew: float, status: str) -> None:
    found, sentence = one(seen(skew=skew, health=check(None)))
    assert found == status
    assert ("ahead of" if skew > 0 else "behind") in sentence


def test_a_gateway_is_a_problem_only_where_it_was_said_to_be() -> None:
    away = Refused("http://gate cannot be reached", UNREACHABLE)
    assert one(seen(gateway=away))[0] == "problem"
    assert one(seen(gateway=away, gateway_given=False))[0] == "warning"
    assert one(seen(gateway={"hello": "world"}))[0] == "warning"


def test_a_gateway_that_lost_redis_or_waits_for_a_table_is_a_problem() -> None:
    ready = {"status": "ready", "redis": "away", "table_revision": 7}
    assert "has lost Redis" in one(seen(gateway=ready))[1]
    waiting = {"status": "waiting for a routing table", "redis": "connected", "table_revision": 7}
    assert one(seen(gateway=waiting))[0] == "problem"


def serving(published: int, *served: int) -> dict[str, Any]:
    return {"parts": {"database": "ok", "store": "ok"}, "routing_table": {"published": published, "served": served}}


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        ((7, 5), "A worker of the gateway serves revision 5 while 7 is published."),
        ((5, 5, 7), "2 workers of the gateway serve revision 5 while 7 is published."),
        ((0, 7), "A worker of the gateway has no table while 7 is published."),
        ((8, 7), "A worker of the gateway serves revision 8 while 7 is published."),
    ],
)
def test_a_worker_that_serves_another_table_than_the_published_one_is_a_problem(
    served: tuple[int, ...], sentence: str
) -> None:
    assert one(seen(parts=serving(7, *served))) == ("problem", sentence)


def test_workers_that_lag_are_named_where_the_key_may_know_them() -> None:
    workers = [{"worker": f"host-{n}", "table_revision": 5 + n % 2 * 2, "table_lag": 2 - n % 2 * 2} for n in range(4)]
    found = one(seen(parts=serving(7, 5, 5, 7, 7), metrics={"gateway": {"workers": workers}}))
    assert found[1] == "2 workers of the gateway (host-0, host-2) serve revision 5 while 7 is published."
    many = [{"worker": f"w{n}", "table_revision": 5, "table_lag": 2} for n in range(11)]
    assert "w9, …)" in one(seen(parts=serving(7, *[5] * 11), metrics={"gateway": {"workers": many}}))[1]


def test_a_gateway_that_tells_the_control_plane_nothing_is_asked_itself() -> None:
    behind = {"status": "ready", "redis": "connected", "table_revision": 3}
    found = [each.sentence for each in told(seen(gateway=behind, parts=serving(7)))]
    assert found == ["A worker of the gateway serves revision 3 while 7 is published."]


def test_who_is_served_what_is_told_even_where_the_gateway_cannot_be_asked() -> None:
    away = Refused("http://gate cannot be reached", UNREACHABLE)
    found = told(seen(gateway=away, gateway_given=False, parts=serving(7, 6)))
    assert [each.about for each in found] == ["gateway", "routing table"]


def test_nothing_is_said_of_tables_before_one_is_published() -> None:
    parts = {"parts": {"database": "ok", "store": "ok"}}
    assert [each.about for each in findings(seen(parts=parts)) if each.about == "routing table"] == []


@pytest.mark.parametrize(("state", "forced"), [("open", False), ("half_open", False), ("closed", True)])
def test_a_breaker_that_is_not_simply_closed_is_a_warning(state: str, forced: bool) -> None:
    breaker = {"name": "orders-circuit", "service": "orders", "state": state, "forced": forced, "reason": "a test"}
    status, sentence = one(seen(breakers=rows(breaker)))
    assert status == "warning"
    assert sentence.endswith("(a test).")


def test_a_service_without_traffic_is_a_problem_unless_an_operator_wants_it() -> None:
    nobody: dict[str, Any] = {"services": []}
    assert one(seen(eligible=nobody)) == ("problem", "No instance of orders may get traffic.")
    drained = {"services": [instance(state="draining")]}
    assert one(seen(services=drained, eligible=nobody))[0] == "warning"
    unknown = {"services": [instance(status="unknown")]}
    assert one(seen(services=unknown, eligible=unknown))[0] == "warning"


def test_a_route_to_nobody_is_a_problem_while_it_is_enabled() -> None:
    assert one(seen(routes=rows(route("ordres")))) == (
        "problem",
        "a-route sends to ordres, of which no instance is registered.",
    )
    assert told(seen(routes=rows(route("ordres", enabled=False)))) == []


def test_a_key_that_expires_soon_is_a_warning() -> None:
    soon, late, over = ("2026-03-05T12:00:00Z", "2026-09-01T12:00:00Z", "2026-02-01T12:00:00Z")
    keys = [key(), key("soon", expires_at=soon), key("late", expires_at=late), key("over", expires_at=over)]
    assert one(seen(keys=rows(*keys))) == ("warning", "the key (soon) expires at 2026-03-05 12:00Z.")


def test_a_renewed_lease_is_no_change_to_tell_of() -> None:
    before = {("orders", "1"): {"status": "healthy", "expires_at": "1"}}
    renewed = {("orders", "1"): {"status": "healthy", "expires_at": "2"}}
    ill = {("orders", "1"): {"status": "unhealthy", "expires_at": "3"}}
    assert list(changes(before, renewed)) == []
    assert [each["before"] for each in changes(renewed, ill)] == [{"status": "healthy"}]
    assert [each["change"] for each in changes(ill, {})] == ["removed"]
    assert [each["change"] for each in changes({}, ill)] == ["added"]


def test_spans_are_read_as_people_write_them() -> None:
    assert times.span("1h30m", "--for") == timedelta(minutes=90)
    assert times.end("2d", "", NOW) == "2026-03-03T12:00:00Z"
    assert times.end("", "2026-03-01T14:00:00+01:00", NOW) == "2026-03-01T13:00:00Z"
    assert times.end("", "", NOW) is None
    with pytest.raises(typer.BadParameter):
        times.span("1h nonsense", "--for")


def test_what_the_api_answers_steers_no_terminal() -> None:
    assert show.text("a\x1b]0;title\x07b\n[red]c") == "a ]0;title b \\[red]c"


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("NAME", "TEXT"), [("x", "y" * 500), ("long name", json.dumps({}))], spare=("TEXT",))
    assert capsys.readouterr().out.splitlines() == ["NAME       TEXT", f"x          {'y' * 500}", "long name  {}"]
