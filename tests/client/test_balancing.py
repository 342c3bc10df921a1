"""Which instance gets the next request."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anumate_integration_service.balancing import STRATEGIES, Candidate, Weighted


def candidates(**weights: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(id, weight) for id, weight in weights.items())


def picks(name: str, among: tuple[Candidate, ...], times: int, key: str = "") -> list[str]:
    strategy, random = STRATEGIES[name](), Random(7).random
    return [strategy.pick(among, 0.0, random, key).id for _ in range(times)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_serves_every_instance_and_copes_with_one(name: str) -> None:
    strategy, random, seen = STRATEGIES[name](), Random(1).random, set()
    among = candidates(a=1, b=1, c=1)
    for number in range(200):
        picked = strategy.pick(among, 0.0, random, str(number))
        picked.started()
        seen.add(picked.id)
    assert seen == {"a", "b", "c"}
    assert {strategy.pick(among[:1], 0.0, random, "k").id for _ in range(5)} == {"a"}


def test_round_robin_takes_each_in_turn_whatever_its_weight() -> None:
    assert "".join(picks("round_robin", candidates(a=9, b=1, c=1), 7)) == "abcabca"


def test_round_robin_survives_a_smaller_membership() -> None:
    strategy, among = STRATEGIES["round_robin"](), candidates(a=1, b=1, c=1)
    for _ in range(3):
        strategy.pick(among, 0.0, Random().random)
    assert strategy.pick(among[:2], 0.0, Random().random).id == "a"


def test_weighted_spreads_like_nginx() -> None:
    assert "".join(picks("weighted", candidates(a=5, b=1, c=1), 14)) == "aabacaa" * 2


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8))
def test_weighted_gives_each_its_share_in_every_round(weights: list[int]) -> None:
    among = tuple(Candidate(str(index), weight) for index, weight in enumerate(weights))
    rounds = 2
    counted = Counter(picks("weighted", among, rounds * sum(weights)))
    assert counted == {str(index): rounds * weight for index, weight in enumerate(weights)}


@given(st.integers(0, 40), st.integers(0, 3))
def test_weighted_replays_its_cycle_exactly_across_a_change_of_membership(before: int, leaves: int) -> None:
    """The recorded cycle is only an optimisation: it must not change a single pick."""
    among = candidates(a=5, b=3, c=1, d=2)
    fewer = tuple(c for index, c in enumerate(among) if index != leaves)
    plain, recorded = Weighted[Candidate](), Weighted[Candidate]()
    seen: list[list[str]] = [[], []]
    for strategy, into in zip((plain, recorded), seen, strict=True):
        for members, times in ((among, before), (fewer, 60), (among, 60)):
            for _ in range(times):
                if strategy is plain:
                    strategy._recording = False
                into.append(strategy.pick(members, 0.0, Random().random).id)
                if strategy is plain:
                    strategy._cycle = []
    assert seen[0] == seen[1]


def test_weighted_does_not_start_over_when_one_joins() -> None:
    strategy, random = STRATEGIES["weighted"](), Random().random
    two = candidates(a=1, b=1)
    assert strategy.pick(two, 0.0, random).id == "a"
    assert strategy.pick((*two, Candidate("c")), 0.0, random).id == "b"


def test_least_connections_takes_the_idlest_for_its_weight() -> None:
    big, small = candidates(big=4, small=1)
    for _ in range(3):
        big.started()
    small.started()
    assert picks("least_connections", (small, big), 1) == ["big"]
    big.started()
    big.started()
    assert picks("least_connections", (big, small), 1) == ["small"]


def test_least_connections_takes_equals_in_turn() -> None:
    assert "".join(picks("least_connections", candidates(a=1, b=1, c=1), 6)) == "abcabc"


def test_p2c_never_takes_the_busiest() -> None:
    a, b, c = candidates(a=1, b=1, c=1)
    for _ in range(5):
        c.started()
    assert "c" not in picks("p2c", (a, b, c), 200)


def test_health_aware_prefers_the_fast() -> None:
    fast, slow = candidates(fast=1, slow=1)
    for each, duration in ((fast, 0.01), (slow, 0.1)):
        each.observed(1.0, duration, failed=False)
    assert set(picks("health_aware", (fast, slow), 50)) == {"fast"}


def test_health_aware_is_not_fooled_by_one_that_fails_fast() -> None:
    works, broken = candidates(works=1, broken=1)
    for each, duration, failed in ((works, 0.02, False), (broken, 0.001, True)):
        each.observed(1.0, duration, failed)
    assert set(picks("health_aware", (works, broken), 50)) == {"works"}


def test_a_slow_answer_is_believed_at_once_and_forgotten_in_time() -> None:
    (one,) = candidates(a=1)
    for now, duration in ((1.0, 0.01), (1.1, 1.0), (1.2, 0.01)):
        one.observed(now, duration, failed=False)
    assert one.latency > 0.9
    one.observed(61.0, 0.01, failed=False)
    assert one.latency < 0.02


def test_a_newcomer_starts_with_its_peers_mean_latency() -> None:
    known, new = candidates(known=1, new=1)
    known.observed(1.0, 0.2, failed=False)
    picks("health_aware", (known, new), 1)
    assert new.latency == 0.2


def test_random_follows_the_weights() -> None:
    counted = Counter(picks("random", candidates(a=3, b=1), 4000))
    assert 2800 < counted["a"] < 3200


def test_a_hash_keeps_each_key_on_its_instance_and_moves_only_those_of_who_left() -> None:
    among = tuple(Candidate(f"i{number}") for number in range(5))
    keys = [f"10.0.0.{number}" for number in range(200)]
    before = {key: picks("hash", among, 1, key)[0] for key in keys}
    after = {key: picks("hash", among[1:], 1, key)[0] for key in keys}
    moved = {key for key in keys if before[key] != after[key]}
    assert moved == {key for key in keys if before[key] == "i0"}
    assert min(Counter(before.values()).values()) > 10


def test_a_request_that_was_given_up_tells_nothing() -> None:
    (one,) = candidates(a=1)
    one.started()
    assert (one.in_flight, one.load) == (1, 1.0)
    one.ended()
    assert (one.in_flight, one.load, one.latency, one.failing) == (0, 0.0, 0.0, 0.0)
