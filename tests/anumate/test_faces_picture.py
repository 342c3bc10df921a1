from __future__ import annotations

import pytest

from anumate.faces.picture import Breaker, ServiceView, next_expiry, summarize, view_instance, view_service
from registry.live.instances import Document, Endpoint, Fact, Instance, Key

NOW = 1_000_000.0


def instance(id_: str, health: str = "", **facts: Fact) -> Instance:
    document = Document(version="1.4.2", endpoints={"http": Endpoint("http", "10.0.0.7", 8000)}, zone="eu-1")
    if health:
        facts["probe"] = Fact(health, f"The check says {health}.", NOW - 60)
    return Instance(Key("acme", "orders", id_), document, NOW - 3600, facts)


def test_an_instance_is_shown_with_the_sentence_of_the_check_that_judged_it() -> None:
    view = view_instance(instance("a", "unhealthy"), NOW)
    assert (view.health, view.traffic, view.sentence, view.since) == (
        "unhealthy",
        False,
        "The check says unhealthy.",
        NOW - 60,
    )
    assert (view.address, view.version, view.zone) == ("10.0.0.7:8000", "1.4.2", "eu-1")


def test_the_worse_word_decides_the_sentence() -> None:
    reported = Fact("degraded", "The queue is long.", NOW - 5)
    assert view_instance(instance("a", "healthy", reported=reported), NOW).sentence == "The queue is long."


def test_an_instance_nobody_judged_gets_traffic_but_is_not_called_healthy() -> None:
    view = view_instance(instance("a"), NOW)
    assert (view.health, view.traffic, view.sentence) == ("unknown", True, "No check has finished yet.")


def test_the_operators_reason_stands_before_the_checks_sentence() -> None:
    state = Fact("draining", "rolling out 1.5.0", NOW - 30, "maria")
    view = view_instance(instance("a", "healthy", state=state), NOW)
    assert (view.state, view.health, view.traffic) == ("draining", "healthy", False)
    assert view.sentence == "Draining, by maria: rolling out 1.5.0"
    assert view.since == NOW - 30


def test_a_state_of_the_whole_service_says_so() -> None:
    state = Fact("maintenance", "", NOW - 30, "maria")
    assert (
        view_instance(instance("a", service_state=state), NOW).sentence
        == "In maintenance, the whole service, by maria."
    )


def test_a_state_that_has_ended_is_passed_over_for_the_one_below_it() -> None:
    ended = Fact("maintenance", "over", NOW - 30, "maria", NOW - 1)
    below = Fact("maintenance", "still on", NOW - 90, "tom")
    view = view_instance(instance("a", state=ended, service_state=below), NOW)
    assert view.sentence == "In maintenance, the whole service, by tom: still on"


@pytest.mark.parametrize(
    ("healths", "status"),
    [
        ([], "empty"),
        (["healthy", "healthy"], "up"),
        (["healthy", ""], "up"),
        (["", ""], "unknown"),
        (["healthy", "unhealthy"], "degraded"),
        (["healthy", "degraded"], "degraded"),
        (["degraded"], "degraded"),
        (["unhealthy", "unhealthy"], "down"),
    ],
)
def test_a_service_is_as_well_as_its_instances(healths: list[str], status: str) -> None:
    instances = [instance(f"i{at}", health) for at, health in enumerate(healths)]
    assert view_service("orders", instances, NOW).status == status


def test_a_service_out_of_rotation_is_paused_not_down() -> None:
    state = Fact("maintenance", "", NOW, "maria")
    assert view_service("orders", [instance("a", "unhealthy", state=state)], NOW).status == "paused"


def test_a_service_is_down_when_all_that_is_left_in_rotation_is_unhealthy() -> None:
    state = Fact("draining", "", NOW, "maria")
    instances = [instance("a", "healthy", state=state), instance("b", "unhealthy")]
    assert view_service("orders", instances, NOW).status == "down"


def test_the_service_names_its_worst_instance_and_why() -> None:
    view = view_service("orders", [instance("a", "degraded"), instance("b", "unhealthy"), instance("c")], NOW)
    assert view.sentence == "b is unhealthy (and 1 more): The check says unhealthy."


def test_it_knows_when_a_state_ends_by_itself() -> None:
    state = Fact("draining", "", NOW, "maria", NOW + 30)
    assert next_expiry([instance("a", state=state), instance("b")], NOW) == NOW + 30
    assert next_expiry([instance("a", state=state)], NOW + 31) == float("inf")


def services(**statuses: str) -> list[ServiceView]:
    return [ServiceView(name, status, "") for name, status in statuses.items()]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "headline", "status"),
    [
        ({}, "Nothing is registered yet.", "unknown"),
        ({"a": "up", "b": "up"}, "Everything is up.", "up"),
        ({"a": "up", "b": "paused"}, "Everything in rotation is up.", "up"),
        ({"a": "paused"}, "Everything is out of rotation by the operator.", "paused"),
        ({"a": "empty"}, "No instance is registered.", "empty"),
        ({"a": "up", "b": "empty"}, "Everything is up.", "up"),
        ({"a": "down", "b": "empty"}, "a is down.", "down"),
        ({"a": "up", "b": "unknown"}, "b is waiting for a first check.", "unknown"),
        ({"a": "degraded"}, "a is degraded.", "degraded"),
        ({"a": "down", "b": "down", "c": "degraded"}, "a and b are down. c is degraded.", "down"),
        ({"a": "down", "b": "down", "c": "down", "d": "down"}, "a, b and 2 more are down.", "down"),
    ],
)
def test_the_headline_says_what_matters_first(given: dict[str, str], headline: str, status: str) -> None:
    summary = summarize(services(**given), ())
    assert (summary.headline, summary.status) == (headline, status)


def test_the_summary_counts() -> None:
    views = [view_service("orders", [instance("a", "healthy"), instance("b", "unhealthy")], NOW)]
    summary = summarize(views, [Breaker("orders", "open"), Breaker("search", "half_open")])
    assert (summary.instances, summary.taking_traffic) == (2, 1)
    assert summary.services["degraded"] == 1
    assert summary.breakers == {"closed": 0, "half_open": 1, "open": 1}
    assert summary.detail == "1 service, 2 instances"
