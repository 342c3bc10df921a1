"""What holds of each strategy whatever the instances, weights and loads."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from anumate_integration_service.balancing import (
    Candidate,
    Hashed,
    HealthAware,
    LeastConnections,
    PowerOfTwo,
    RoundRobin,
    Weighted,
)

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=8)
LOADS = st.lists(st.integers(0, 5), min_size=1, max_size=12)
NOBODY = Random(3).random


def weighing(weights: list[int]) -> tuple[Candidate, ...]:
    return tuple(Candidate(str(number), weight) for number, weight in enumerate(weights))


def busy(loads: list[int]) -> tuple[Candidate, ...]:
    among = tuple(Candidate(str(number)) for number in range(len(loads)))
    for candidate, load in zip(among, loads, strict=True):
        for _ in range(load):
            candidate.started()
    return among


@given(WEIGHTS, st.integers(1, 50))
def test_weighted_stays_within_one_pick_of_each_share_at_every_moment(weights: list[int], rounds: int) -> None:
    """No bursts, which is what smooth means: an instance is never more than a turn per peer ahead or behind."""
    among, strategy, seen = weighing(weights), Weighted[Candidate](), Counter[str]()
    for number in range(1, rounds + 1):
        seen[strategy.pick(among, 0.0, NOBODY).id] += 1
        for candidate in among:
            assert abs(seen[candidate.id] - number * candidate.weight / sum(weights)) < len(among)


@given(WEIGHTS, st.integers(1, 50), st.integers(0, 200))
def test_weighted_keeps_the_order_of_those_who_stay_when_an_unrelated_one_joins(
    weights: list[int], newcomer: int, before: int
) -> None:
    """Restarting would give the first ones their turn again: who stays is never ahead by more than a turn per peer."""
    among, strategy, seen = weighing(weights), Weighted[Candidate](), Counter[str]()
    for _ in range(before):
        seen[strategy.pick(among, 0.0, NOBODY).id] += 1
    joined = (*among, Candidate("new", newcomer))
    cycle = sum(weights) + newcomer
    for _ in range(2 * cycle):
        seen[strategy.pick(joined, 0.0, NOBODY).id] += 1
    for candidate in among:
        share = before * candidate.weight / sum(weights) + 2 * candidate.weight
        assert abs(seen[candidate.id] - share) < 2 * len(joined)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_round_robin_never_skips_and_never_repeats_while_its_members_stay(weights: list[int]) -> None:
    among, strategy = weighing(weights), RoundRobin[Candidate]()
    picked = [strategy.pick(among, 0.0, NOBODY) for _ in range(3 * len(among))]
    assert picked == list(among) * 3


@given(LOADS, st.integers(0, 20))
def test_least_connections_takes_the_least_loaded_from_any_turn(loads: list[int], turns: int) -> None:
    among, strategy = busy(loads), LeastConnections[Candidate]()
    for _ in range(turns):
        strategy.pick(among, 0.0, NOBODY)
    assert strategy.pick(among, 0.0, NOBODY).load == min(loads)


@given(LOADS)
def test_least_connections_shares_evenly_among_the_least_loaded(loads: list[int]) -> None:
    among, strategy = busy(loads), LeastConnections[Candidate]()
    idlest = loads.count(min(loads))
    counted = Counter(strategy.pick(among, 0.0, NOBODY).id for _ in range(5 * idlest))
    assert set(counted.values()) == {5}


@given(LOADS, st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_p2c_takes_the_less_loaded_of_two_different_ones(loads: list[int], one: float, other: float) -> None:
    among = busy(loads)
    draws = iter((one, other))
    picked = PowerOfTwo[Candidate]().pick(among, 0.0, lambda: next(draws))
    first = int(one * len(loads))
    rest = [*range(first), *range(first + 1, len(loads))]
    second = rest[int(other * len(rest))] if rest else first
    assert picked.load == min(loads[first], loads[second])
    assert picked in (among[first], among[second])


@given(st.lists(st.tuples(st.floats(0.001, 9), st.integers(0, 9)), min_size=2, max_size=8), st.randoms())
def test_health_aware_never_takes_the_dearest(seen: list[tuple[float, int]], random: Random) -> None:
    among = busy([load for _, load in seen])
    for candidate, (latency, _) in zip(among, seen, strict=True):
        candidate.observed(1.0, latency, failed=False)
    dearest = max(candidate.cost for candidate in among)
    picked = HealthAware[Candidate]().pick(among, 1.0, random.random)
    assert picked.cost < dearest or sum(candidate.cost == dearest for candidate in among) > 1


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.data())
def test_a_hash_moves_only_the_leavers_keys(weights: list[int], data: st.DataObject) -> None:
    among = weighing([*weights, max(weights)])  # the heaviest is there twice, so the scale of shares stays
    leaver = data.draw(st.sampled_from(among))
    fewer = tuple(candidate for candidate in among if candidate is not leaver)
    before, after = Hashed[Candidate](), Hashed[Candidate]()
    for key in map(str, range(100)):
        owner = before.pick(among, 0.0, NOBODY, key)
        if owner is not leaver:
            assert after.pick(fewer, 0.0, NOBODY, key) is owner
