"""When clients ask again: pure functions of an rng and virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from anumate_integration_service.errors import RegistrationRefused, RegistryUnavailable
from anumate_integration_service.pacing import beat_pause, full_jitter, retry_pause

AWAY = RegistryUnavailable("away")


def test_back_off_spreads_over_a_doubling_limit() -> None:
    assert [full_jitter(doublings, 1.0) for doublings in (0, 1, 2, 50)] == [0.5, 1.0, 2.0, 60.0]
    assert full_jitter(2, 0.25) == 0.5


@pytest.mark.parametrize(("drawn", "pause"), [(0.0, 9.0), (0.5, 10.0), (1.0, 11.0)])
def test_heartbeats_come_a_tenth_sooner_or_later(drawn: float, pause: float) -> None:
    assert beat_pause(10.0, lambda: drawn) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("asked_for", "drawn", "pause"),
    [(None, 0.5, 0.25), (7.0, 0.0, 7.0), (7.0, 1.0, 7.5), (1e9, 0.0, 300.0), (-5.0, 0.0, 0.0)],
)
def test_what_the_registry_asks_for_is_the_least(asked_for: float | None, drawn: float, pause: float) -> None:
    assert retry_pause(RegistryUnavailable("busy", asked_for), 1, lambda: drawn) == pause


@pytest.mark.parametrize(("drawn", "pause"), [(0.0, 30.0), (1.0, 90.0)])
def test_a_refusal_is_asked_again_seldom(drawn: float, pause: float) -> None:
    assert retry_pause(RegistrationRefused("no", status=401, code=""), 1, lambda: drawn) == pause


def returns(outage: float, rng: Callable[[], float], cap: float) -> float:
    """When a client that meets an outage of this length is back, in seconds from its start."""
    at, failures = beat_pause(10.0, rng) * rng(), 0
    while at < outage:
        failures += 1
        at += retry_pause(AWAY, failures, rng, cap=cap)
    return at


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_clients_do_not_come_back_in_the_same_second(seed: int) -> None:
    rng = random.Random(seed).random
    outage = 900.0
    seconds = Counter(int(returns(outage, rng, 60.0) - outage) for _ in range(1000))
    assert seconds.total() == 1000
    assert max(seconds.values()) <= 60
    assert max(seconds) <= 60
