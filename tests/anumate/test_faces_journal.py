from __future__ import annotations

from anumate.faces.journal import Event, breaker_events, merge, service_events
from anumate.faces.picture import Breaker, InstanceView, ServiceView

NOW = 1_000_000.0


def line(id_: str = "a", health: str = "healthy", state: str = "enabled", sentence: str = "") -> InstanceView:
    return InstanceView(id_, health, state, True, sentence, NOW, "1.0.0", "", "10.0.0.1:80")  # type: ignore[arg-type]


def service(*instances: InstanceView) -> ServiceView:
    return ServiceView("orders", "up", "", instances)


def told(old: ServiceView | None, new: ServiceView | None) -> list[tuple[str, str, str]]:
    return [(event.instance, event.word, event.sentence) for event in service_events(old, new, NOW)]


def test_it_tells_who_came_and_who_left() -> None:
    assert told(None, service(line())) == [("a", "joined", "10.0.0.1:80, version 1.0.0")]
    assert told(service(line()), None) == [("a", "left", "It deregistered, or its lease ran out.")]
    assert told(service(line("a")), service(line("b"))) == [
        ("b", "joined", "10.0.0.1:80, version 1.0.0"),
        ("a", "left", "It deregistered, or its lease ran out."),
    ]


def test_it_tells_a_flip_with_its_reason() -> None:
    after = service(line(health="unhealthy", sentence="Connection refused."))
    assert told(service(line()), after) == [("a", "unhealthy", "Connection refused.")]


def test_it_tells_what_the_operator_did_and_when_it_is_over() -> None:
    drained = service(line(state="draining", sentence="Draining, by maria."))
    assert told(service(line()), drained) == [("a", "draining", "Draining, by maria.")]
    assert told(drained, service(line())) == [("a", "enabled", "It is back in rotation.")]


def test_a_new_sentence_alone_is_no_event() -> None:
    assert told(service(line(sentence="200 in 2 ms")), service(line(sentence="200 in 3 ms"))) == []


def test_it_tells_when_a_breaker_turns() -> None:
    opened = {"orders": Breaker("orders", "open", "5 calls in a row failed.", NOW - 2)}
    assert list(breaker_events({}, {"orders": Breaker("orders")}, NOW)) == []
    assert list(breaker_events({}, opened, NOW)) == [
        Event(NOW - 2, "bad", "breaker open", "orders", "", "5 calls in a row failed.")
    ]
    assert list(breaker_events(opened, opened, NOW)) == []


def test_what_is_remembered_comes_newest_first_and_not_endless() -> None:
    events = [Event(at, "good", "healthy", "orders") for at in (1.0, 3.0, 2.0)]
    assert [event.at for event in merge(events, 2)] == [3.0, 2.0]
