"""How much may be sent again, on a clock that the test moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anumate_integration_service.pacing import full_jitter
from anumate_integration_service.retries import RetryBudget, RetryPolicy


def test_a_budget_pays_its_floor_without_a_single_request() -> None:
    budget = RetryBudget(floor=3)
    assert [budget.withdraw(0.0) for _ in range(4)] == [True, True, True, False]


def test_five_requests_earn_a_retry() -> None:
    budget = RetryBudget(ratio=0.2, floor=0)
    for _ in range(4):
        budget.deposit(0.0)
    assert not budget.withdraw(0.0)
    budget.deposit(0.0)
    assert budget.withdraw(0.0)
    assert not budget.withdraw(0.0)


def test_what_was_earned_and_spent_is_forgotten_with_the_window() -> None:
    budget = RetryBudget(ratio=1.0, floor=1, window_seconds=10)
    budget.deposit(0.0)
    assert [budget.withdraw(0.0) for _ in range(3)] == [True, True, False]
    assert budget.left(10.0) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200))
def test_retries_of_a_window_never_exceed_the_floor_and_the_share(steps: list[tuple[int, bool]]) -> None:
    budget, now = RetryBudget(ratio=0.25, floor=2, window_seconds=10), 0
    requests: list[int] = []
    retries: list[int] = []
    for pause, is_retry in steps:
        now += pause
        requests = [at for at in requests if at > now - 10]
        retries = [at for at in retries if at > now - 10]
        if not is_retry:
            budget.deposit(now)
            requests.append(now)
        else:
            can_pay = 2 + len(requests) / 4 - len(retries) >= 1
            assert budget.withdraw(now) == can_pay
            if can_pay:
                retries.append(now)


@given(st.integers(0, 5000), st.floats(0, 1))
def test_a_pause_stays_below_its_doubling_limit(doublings: int, draw: float) -> None:
    assert 0 <= full_jitter(doublings, draw, 0.025, 1.0) <= min(1.0, 0.025 * 2.0 ** min(doublings, 60))


def test_the_first_retry_goes_out_at_once_and_later_ones_wait() -> None:
    policy = RetryPolicy(base_seconds=0.1, max_seconds=0.3)
    assert [policy.pause(retry, 1.0) for retry in range(1, 6)] == [0.0, 0.1, 0.2, 0.3, 0.3]
