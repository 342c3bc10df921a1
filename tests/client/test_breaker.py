"""The circuit breaker, on a clock that the test moves."""

from __future__ import annotations

import pytest

from anumate_integration_service.breaker import BreakerPolicy, CircuitBreaker, Event, Outcome, Trial

POLICY = BreakerPolicy(
    window_seconds=10, minimum_calls=10, failure_rate=0.5, consecutive_failures=5, open_seconds=60, half_open_calls=3
)


def call(breaker: CircuitBreaker, outcome: Outcome, now: float, duration: float = 0.01) -> None:
    ticket = breaker.acquire(now)
    assert ticket is not None, "refused"
    breaker.settle(ticket, outcome, now, duration)


def fail(breaker: CircuitBreaker, times: int, now: float) -> None:
    for _ in range(times):
        call(breaker, Outcome.FAILURE, now)


def succeed(breaker: CircuitBreaker, times: int, now: float) -> None:
    for _ in range(times):
        call(breaker, Outcome.SUCCESS, now)


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(POLICY, now=100.0)


@pytest.fixture
def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    fail(breaker, 5, 100.0)
    return breaker


def test_it_lets_calls_through_and_counts_them(breaker: CircuitBreaker) -> None:
    succeed(breaker, 3, 100.0)
    seen = breaker.snapshot(100.0)
    assert (seen.state, seen.calls, seen.failures, seen.failure_rate) == ("closed", 3, 0, 0.0)


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    fail(breaker, 4, 100.0)
    succeed(breaker, 1, 100.0)
    fail(breaker, 4, 100.0)
    assert breaker.acquire(100.0) is not None
    fail(breaker, 1, 100.0)
    assert breaker.acquire(100.0) is None
    assert breaker.snapshot(100.0).reason == "5 calls failed in a row."


def test_it_opens_at_the_failure_rate_once_enough_calls_were_made(breaker: CircuitBreaker) -> None:
    for _ in range(4):
        fail(breaker, 1, 100.0)
        succeed(breaker, 1, 100.0)
    assert breaker.snapshot(100.0).state == "closed"  # half failed, of 8
    fail(breaker, 1, 100.0)
    succeed(breaker, 1, 100.0)  # a success can complete the number of calls that a verdict needs
    seen = breaker.snapshot(100.0)
    assert (seen.state, seen.reason) == ("open", "5 of 10 calls failed within 10 s.")


def test_failures_older_than_the_window_are_forgotten(breaker: CircuitBreaker) -> None:
    fail(breaker, 4, 100.0)
    succeed(breaker, 1, 105.0)
    assert breaker.snapshot(109.9).failures == 4
    assert breaker.snapshot(110.0).failures == 0
    assert breaker.snapshot(110.0).calls == 1
    assert breaker.snapshot(500.0).calls == 0


def test_it_opens_when_too_many_calls_are_slow() -> None:
    breaker = CircuitBreaker(BreakerPolicy(minimum_calls=4, slow_call_seconds=1.0, slow_call_rate=0.5), now=0.0)
    for duration in (0.1, 2.0, 0.1):
        call(breaker, Outcome.SUCCESS, 0.0, duration)
    assert breaker.snapshot(0.0).state == "closed"
    call(breaker, Outcome.SUCCESS, 0.0, 2.0)
    assert breaker.snapshot(0.0).reason == "2 of 4 calls took over 1 s within 10 s."


def test_it_says_when_to_come_back(opened: CircuitBreaker) -> None:
    assert opened.retry_in(110.0) == 50.0
    assert opened.acquire(159.9) is None


def test_half_open_it_lets_a_few_trials_through_and_closes_when_they_are_good(opened: CircuitBreaker) -> None:
    tickets = [opened.acquire(160.0) for _ in range(4)]
    assert tickets[3] is None
    assert opened.snapshot(160.0).state == "half_open"
    for ticket in tickets[:3]:
        assert ticket is not None
        opened.settle(ticket, Outcome.SUCCESS, 160.5)
    assert opened.snapshot(160.5).state == "closed"
    assert opened.snapshot(160.5).calls == 0


def test_one_bad_trial_opens_it_again_for_the_full_time(opened: CircuitBreaker) -> None:
    succeed(opened, 2, 160.0)
    fail(opened, 1, 161.0)
    assert opened.acquire(220.9) is None
    assert opened.acquire(221.0) is not None


def test_a_slow_trial_is_a_bad_trial() -> None:
    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1, slow_call_seconds=1.0, open_seconds=10), now=0.0)
    fail(breaker, 1, 0.0)
    call(breaker, Outcome.SUCCESS, 10.0, 1.5)
    assert breaker.snapshot(10.0).reason == "A trial call was too slow."


def test_a_cancelled_trial_gives_its_permit_back_and_proves_nothing(opened: CircuitBreaker) -> None:
    for _ in range(20):
        call(opened, Outcome.CANCELLED, 160.0)
    assert opened.snapshot(160.0).state == "half_open"
    succeed(opened, 3, 160.0)
    assert opened.snapshot(160.0).state == "closed"


def test_a_cancelled_call_counts_for_nothing(breaker: CircuitBreaker) -> None:
    fail(breaker, 4, 100.0)
    call(breaker, Outcome.CANCELLED, 100.0)
    assert breaker.snapshot(100.0).calls == 4
    fail(breaker, 1, 100.0)
    assert breaker.snapshot(100.0).state == "open"


def test_it_ignores_a_vote_from_before_it_opened(breaker: CircuitBreaker) -> None:
    early = breaker.acquire(100.0)
    assert early is not None
    fail(breaker, 5, 100.0)
    breaker.settle(early, Outcome.SUCCESS, 161.0)
    assert breaker.snapshot(159.0).state == "open"
    assert breaker.acquire(160.0) is not None  # half-open
    breaker.settle(early, Outcome.FAILURE, 160.0)
    assert breaker.snapshot(160.0).state == "half_open"


def test_a_call_that_broke_off_after_it_was_good_counts_as_a_failure(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        ticket = breaker.acquire(100.0)
        assert ticket is not None
        breaker.settle(ticket, Outcome.SUCCESS, 100.0)
        breaker.blame(ticket, 100.0)
    seen = breaker.snapshot(100.0)
    assert (seen.state, seen.reason) == ("open", "5 of 10 calls failed within 10 s.")


def test_a_call_from_before_it_opened_that_breaks_off_late_ends_no_trial(breaker: CircuitBreaker) -> None:
    early = breaker.acquire(100.0)
    assert early is not None
    breaker.settle(early, Outcome.SUCCESS, 100.0)
    fail(breaker, 5, 100.0)
    breaker.blame(early, 161.0)
    assert breaker.snapshot(161.0).state == "half_open"
    breaker.blame(early, 161.0)
    assert breaker.snapshot(161.0).state == "half_open"
    succeed(breaker, 3, 161.0)
    breaker.blame(early, 162.0)
    assert breaker.snapshot(162.0).failures == 0


def test_a_trial_that_breaks_off_was_a_bad_one(opened: CircuitBreaker) -> None:
    ticket = opened.acquire(160.0)
    assert ticket is not None
    opened.settle(ticket, Outcome.SUCCESS, 160.0)
    opened.blame(ticket, 161.0)
    assert opened.snapshot(161.0).state == "open"
    tickets = [opened.acquire(221.0) for _ in range(3)]
    for ticket in tickets:
        assert ticket is not None
        opened.settle(ticket, Outcome.SUCCESS, 221.0)
    for ticket in tickets:  # closed by them
        assert ticket is not None
        opened.blame(ticket, 222.0)
    assert opened.snapshot(222.0).failures == 3


def test_nobody_tries_when_another_may(opened: CircuitBreaker) -> None:
    opened.try_until = 170.0
    tickets = [opened.acquire(165.0), opened.acquire(170.0)]
    assert tickets[0] is not None
    assert tickets[1] is None
    assert opened.snapshot(170.0).state == "half_open"  # what is out may still decide
    opened.settle(tickets[0], Outcome.SUCCESS, 171.0)
    seen = opened.snapshot(171.0)
    assert (seen.state, seen.retry_in, seen.relapsed) == ("open", 0.0, False)
    opened.try_until = 180.0
    succeed(opened, 3, 172.0)
    assert opened.snapshot(172.0).recovered


def test_an_operator_holds_it_open_until_reset(breaker: CircuitBreaker) -> None:
    breaker.force("open", 100.0, "moving house")
    assert breaker.acquire(10_000.0) is None
    seen = breaker.snapshot(10_000.0)
    assert (seen.state, seen.forced, seen.reason, seen.retry_in) == ("open", True, "moving house", 0.0)
    breaker.force("reset", 10_000.0)
    assert breaker.acquire(10_000.0) is not None
    fail(breaker, 5, 10_000.0)
    assert breaker.snapshot(10_000.0).state == "open"


def test_an_operator_holds_it_closed_and_it_goes_on_counting(opened: CircuitBreaker) -> None:
    opened.force("close", 101.0)
    fail(opened, 50, 101.0)
    seen = opened.snapshot(101.0)
    assert (seen.state, seen.forced, seen.failures) == ("closed", True, 50)


def test_it_keeps_its_state_and_counts_under_a_new_policy(breaker: CircuitBreaker) -> None:
    fail(breaker, 4, 100.0)
    breaker.adopt(BreakerPolicy(consecutive_failures=6))
    fail(breaker, 1, 100.0)
    assert breaker.snapshot(100.0).state == "closed"
    fail(breaker, 1, 100.0)
    assert breaker.snapshot(100.0).state == "open"
    breaker.adopt(BreakerPolicy(open_seconds=5, window_seconds=30))
    assert breaker.retry_in(101.0) == 4.0


@pytest.mark.parametrize("trials", [1, 2, 5])
def test_a_policy_that_changes_while_it_is_half_open_still_lets_it_close(opened: CircuitBreaker, trials: int) -> None:
    succeed(opened, 2, 160.0)
    opened.adopt(BreakerPolicy(half_open_calls=trials))
    succeed(opened, max(trials - 2, 1), 160.0)
    assert opened.snapshot(160.0).state == "closed"


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.CANCELLED])
def test_an_ignored_error_is_neither_success_nor_failure(opened: CircuitBreaker, outcome: Outcome) -> None:
    for _ in range(20):
        call(opened, outcome, 160.0)
    seen = opened.snapshot(160.0)
    assert (seen.state, seen.trials_out) == ("half_open", 0)
    succeed(opened, 3, 160.0)
    call(opened, outcome, 160.0, duration=1000.0)
    assert opened.snapshot(160.0).calls == 0


def test_a_count_window_judges_the_last_calls_however_old_they_are() -> None:
    policy = BreakerPolicy(window="count", window_calls=4, minimum_calls=4, consecutive_failures=0)
    breaker = CircuitBreaker(policy)
    fail(breaker, 1, 0.0)
    succeed(breaker, 3, 1000.0)
    assert breaker.snapshot(9000.0).failures == 1
    succeed(breaker, 1, 9000.0)  # takes the failure's place
    assert (breaker.snapshot(9000.0).calls, breaker.snapshot(9000.0).failures) == (4, 0)
    fail(breaker, 2, 9000.0)
    seen = breaker.snapshot(9000.0)
    assert (seen.state, seen.reason) == ("open", "2 of the last 4 calls failed.")


def test_a_count_window_needs_no_more_calls_than_it_holds() -> None:
    breaker = CircuitBreaker(BreakerPolicy(window="count", window_calls=3, minimum_calls=100, consecutive_failures=0))
    fail(breaker, 2, 0.0)
    assert breaker.snapshot(0.0).state == "closed"
    fail(breaker, 1, 0.0)
    assert breaker.snapshot(0.0).state == "open"


def test_another_window_begins_with_no_counts(breaker: CircuitBreaker) -> None:
    fail(breaker, 4, 100.0)
    breaker.adopt(BreakerPolicy(window="count", window_calls=8))
    assert breaker.snapshot(100.0).calls == 0
    fail(breaker, 1, 100.0)
    assert breaker.snapshot(100.0).state == "open"  # five in a row all the same


def test_each_failed_trial_makes_the_next_wait_longer_up_to_a_limit() -> None:
    breaker = CircuitBreaker(
        BreakerPolicy(consecutive_failures=1, open_seconds=10, backoff=2, max_open_seconds=35, half_open_calls=1)
    )
    now, waits = 0.0, []
    for _ in range(5):
        fail(breaker, 1, now)
        waits.append(breaker.retry_in(now))
        now += waits[-1]
    assert waits == [10, 20, 35, 35, 35]
    succeed(breaker, 1, now)
    fail(breaker, 1, now)
    assert breaker.retry_in(now) == 10  # it was well in between


@pytest.mark.parametrize(("draw", "wait"), [(0.0, 8.0), (0.5, 10.0), (1.0, 12.0)])
def test_the_wait_is_spread_by_the_draw_it_is_given(draw: float, wait: float) -> None:
    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1, open_seconds=10, jitter=0.2))
    ticket = breaker.acquire(0.0)
    assert ticket is not None
    breaker.settle(ticket, Outcome.FAILURE, 0.0, draw=draw)
    assert breaker.retry_in(0.0) == pytest.approx(wait)


def test_trials_that_never_come_back_do_not_hold_it_half_open_for_ever() -> None:
    breaker = CircuitBreaker(
        BreakerPolicy(consecutive_failures=1, open_seconds=10, half_open_calls=2, half_open_seconds=5)
    )
    fail(breaker, 1, 0.0)
    lost = breaker.acquire(10.0)
    assert lost is not None
    assert breaker.snapshot(14.9).state == "half_open"
    seen = breaker.snapshot(15.0)
    assert (seen.state, seen.reason) == ("open", "1 trial calls did not end within 5 s.")
    breaker.settle(lost, Outcome.SUCCESS, 15.0)
    assert breaker.acquire(24.9) is None  # it opened when the trials' time was over, not when somebody looked
    succeed(breaker, 2, 25.0)
    assert breaker.snapshot(25.0).state == "closed"


@pytest.fixture
def waiting(opened: CircuitBreaker) -> list[tuple[int, Trial]]:
    """All the trials of a breaker that may try at 160, which wait for their callers all the time."""
    trials = []
    while (ticket := opened.acquire(160.0)) is not None:
        trial = opened.may_wait(ticket, 160.0, lambda now: now - 160.0)
        assert trial is not None
        trials.append((ticket, trial))
    return trials


def test_a_trial_that_waits_for_its_own_caller_makes_room_for_another(
    opened: CircuitBreaker, waiting: list[tuple[int, Trial]]
) -> None:
    assert len(waiting) == opened.snapshot(160.0).trials_out == 3
    assert opened.acquire(160.9) is None
    succeed(opened, 3, 161.0)
    assert opened.snapshot(161.0).state == "closed"
    opened.settle(waiting[0][0], Outcome.FAILURE, 162.0, trial=waiting[0][1])
    assert opened.snapshot(162.0).failures == 0


def test_a_trial_that_made_room_speaks_for_the_callee_and_not_against_it(
    opened: CircuitBreaker, waiting: list[tuple[int, Trial]]
) -> None:
    (bad, bad_trial), *good = waiting
    opened.settle(bad, Outcome.FAILURE, 190.0, trial=bad_trial)
    seen = opened.snapshot(190.0)
    assert (seen.state, seen.trials_out, seen.trials_aside) == ("half_open", 0, 3)
    for ticket, trial in good:
        opened.settle(ticket, Outcome.SUCCESS, 190.0, trial=trial)
    succeed(opened, 1, 190.0)
    assert opened.snapshot(190.0).state == "closed"


def test_a_trial_that_has_hardly_waited_is_judged_as_any_other(
    opened: CircuitBreaker, waiting: list[tuple[int, Trial]]
) -> None:
    ticket, trial = waiting[0]
    opened.settle(ticket, Outcome.CANCELLED, 160.2, trial=trial)
    assert opened.snapshot(160.2).trials_out == 2
    ticket, trial = waiting[1]
    opened.settle(ticket, Outcome.FAILURE, 160.3, trial=trial)
    assert opened.snapshot(160.3).reason == "A trial call failed."


def test_what_a_trial_waits_for_its_own_caller_is_not_the_callees_time() -> None:
    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1, open_seconds=10, half_open_seconds=0.5))
    fail(breaker, 1, 0.0)
    ticket = breaker.acquire(10.0)
    assert ticket is not None
    assert breaker.may_wait(ticket, 10.0, lambda now: min(now - 10.0, 0.8)) is not None
    assert breaker.snapshot(11.2).state == "half_open"
    assert breaker.snapshot(11.4).reason == "1 trial calls did not end within 0.5 s."


def test_only_a_trial_may_wait(breaker: CircuitBreaker) -> None:
    ticket = breaker.acquire(100.0)
    assert ticket is not None
    assert breaker.may_wait(ticket, 100.0, lambda now: 0.0) is None
    fail(breaker, 5, 100.0)
    assert breaker.acquire(160.0) is not None
    assert breaker.may_wait(ticket, 100.0, lambda now: 0.0) is None
    assert breaker.snapshot(170.0).trials_out == 1


def test_half_open_it_waits_for_calls_as_long_as_none_is_out() -> None:
    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1, open_seconds=10, half_open_seconds=5))
    fail(breaker, 1, 0.0)
    assert breaker.snapshot(10.0).state == "half_open"
    assert breaker.snapshot(10_000.0).state == "half_open"
    succeed(breaker, 3, 10_000.0)


def test_for_metrics_only_it_counts_and_refuses_nothing() -> None:
    heard: list[Event] = []
    breaker = CircuitBreaker(BreakerPolicy(metrics_only=True, consecutive_failures=2), listener=heard.append)
    fail(breaker, 9, 0.0)
    succeed(breaker, 1, 0.0)
    fail(breaker, 2, 0.0)
    assert breaker.snapshot(0.0).failures == 11
    exceeded = [event.reason for event in heard if event.kind == "exceeded"]
    assert exceeded == ["2 calls failed in a row.", "2 calls failed in a row."]


def test_an_open_breaker_that_is_told_to_only_measure_lets_calls_through(opened: CircuitBreaker) -> None:
    opened.adopt(BreakerPolicy(metrics_only=True))
    assert opened.acquire(101.0) is not None


def test_a_listener_hears_what_happens() -> None:
    heard: list[Event] = []
    policy = BreakerPolicy(consecutive_failures=2, slow_call_seconds=1.0, open_seconds=10, half_open_calls=1)
    breaker = CircuitBreaker(policy, listener=heard.append)
    call(breaker, Outcome.SUCCESS, 0.0, duration=2.0)
    call(breaker, Outcome.CANCELLED, 1.0, duration=2.0)
    fail(breaker, 2, 2.0)
    assert breaker.acquire(3.0) is None
    succeed(breaker, 1, 12.0)
    assert [(event.kind, event.state, event.at) for event in heard] == [
        ("slow", "closed", 0.0),
        ("success", "closed", 0.0),
        ("ignored", "closed", 1.0),
        ("failure", "closed", 2.0),
        ("failure", "closed", 2.0),
        ("state", "open", 2.0),
        ("refused", "open", 3.0),
        ("state", "half_open", 12.0),
        ("success", "half_open", 12.0),
        ("state", "closed", 12.0),
    ]


def test_a_listener_that_fails_spoils_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def deaf(event: Event) -> None:
        raise RuntimeError("deaf")

    breaker = CircuitBreaker(BreakerPolicy(consecutive_failures=1), listener=deaf)
    fail(breaker, 1, 0.0)
    assert breaker.acquire(0.0) is None
    assert "a breaker's listener failed" in caplog.text
