"""The breaker against a naive one that remembers every call, on a clock that only goes forward."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anumate_integration_service.breaker import BreakerPolicy, CircuitBreaker, Outcome
from anumate_integration_service.windows import BUCKETS, CountWindow, TimeWindow

# Times are whole eighths, and buckets a second wide, so that no rounding blurs which bucket a call falls into.
EIGHTHS = st.integers(0, 40).map(lambda eighths: eighths / 8)
CALLS = st.tuples(EIGHTHS, st.booleans(), st.booleans())

POLICIES = st.builds(
    BreakerPolicy,
    window=st.sampled_from(["time", "count"]),
    window_calls=st.integers(1, 8),
    minimum_calls=st.integers(1, 8),
    failure_rate=st.sampled_from([0.25, 0.5, 1.0]),
    consecutive_failures=st.integers(0, 4),
    slow_call_seconds=st.sampled_from([None, 1.0]),
    slow_call_rate=st.sampled_from([0.5, 1.0]),
    open_seconds=st.just(4.0),
    half_open_calls=st.integers(1, 4),
    backoff=st.sampled_from([1.0, 2.0]),
    max_open_seconds=st.just(16.0),
    half_open_seconds=st.sampled_from([None, 2.0]),
)


@given(st.lists(CALLS))
def test_a_time_window_counts_what_its_last_ten_buckets_saw(calls: list[tuple[float, bool, bool]]) -> None:
    window, now, seen = TimeWindow(float(BUCKETS)), 0.0, []
    for pause, failed, slow in calls:
        now += pause
        window.count(now, failed, slow)
        seen.append((int(now), failed, slow))
        kept = [each for each in seen if each[0] > int(now) - BUCKETS]
        assert (window.calls, window.failures, window.slow) == _sums(kept)


@given(st.integers(1, 9), st.lists(CALLS))
def test_a_count_window_counts_its_last_calls(size: int, calls: list[tuple[float, bool, bool]]) -> None:
    window = CountWindow(size)
    for number, (now, failed, slow) in enumerate(calls, start=1):
        window.count(now, failed, slow)
        assert (window.calls, window.failures, window.slow) == _sums(calls[max(number - size, 0) : number])
    window.clear()
    assert (window.calls, window.failures, window.slow) == (0, 0, 0)


@given(POLICIES, st.integers(0, 400), st.floats(0, 1), st.floats(0, 0.5))
def test_an_open_wait_stays_within_its_limit_and_jitter(
    policy: BreakerPolicy, reopened: int, draw: float, jitter: float
) -> None:
    wait = replace(policy, jitter=jitter).open_wait(reopened, draw)
    assert 4.0 * (1 - jitter) <= wait <= 16.0 * (1 + jitter)


class AgainstTheNaive(RuleBasedStateMachine):
    """Callers come, go and get lost in any order; the naive breaker is asked after each step."""

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.now = 0.0
        self.breaker = CircuitBreaker(policy)
        self.out: list[int] = []
        self.stale: list[int] = []
        self.generation = self.breaker.generation
        self.calls: list[tuple[int, bool, bool]] = []
        self.in_a_row = 0
        self.state = "closed"
        self.ends = 0.0
        self.good = self.reopened = 0

    @rule(pause=EIGHTHS)
    def time_passes(self, pause: float) -> None:
        self.now += pause
        self.catch_up()

    @rule()
    def a_call_comes(self) -> None:
        self.catch_up()
        ticket = self.breaker.acquire(self.now)
        if self.state == "open":
            assert ticket is None
        elif self.state == "closed":
            assert ticket is not None
        else:
            assert (ticket is not None) == (len(self.out) + self.good < self.policy.half_open_calls)
            if ticket is not None and not self.out and self.policy.half_open_seconds is not None:
                self.ends = self.now + self.policy.half_open_seconds
        if ticket is not None:
            self.out.append(ticket)

    @precondition(lambda self: self.out)
    @rule(
        which=st.integers(0, 99), outcome=st.sampled_from(list(Outcome)), duration=st.sampled_from([0.1, 1.0, 1.1, 9.0])
    )
    def a_call_ends(self, which: int, outcome: Outcome, duration: float) -> None:
        self.breaker.settle(self.out.pop(which % len(self.out)), outcome, self.now, duration)
        if outcome not in {Outcome.SUCCESS, Outcome.FAILURE}:
            return
        failed = outcome is Outcome.FAILURE
        slow = self.policy.slow_call_seconds is not None and duration > self.policy.slow_call_seconds
        if self.state == "half_open":
            self.good += 1
            if failed or slow:
                self.opens(self.now, again=True)
            elif self.good == self.policy.half_open_calls:
                self.flips("closed")
                self.calls, self.in_a_row, self.reopened = [], 0, 0
        else:
            self.calls.append((int(self.now), failed, slow))
            self.in_a_row = self.in_a_row + 1 if failed else 0
            if self.must_open():
                self.opens(self.now, again=False)

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 99), outcome=st.sampled_from(list(Outcome)))
    def a_call_of_an_earlier_generation_changes_nothing(self, which: int, outcome: Outcome) -> None:
        before = self.breaker.snapshot(self.now)
        self.breaker.settle(self.stale[which % len(self.stale)], outcome, self.now, 9.0)
        assert self.breaker.snapshot(self.now) == before

    @rule()
    def an_operator_resets_it(self) -> None:
        self.breaker.force("reset", self.now)
        self.flips("closed")
        self.calls, self.in_a_row, self.reopened = [], 0, 0

    @invariant()
    def it_says_what_the_naive_one_says(self) -> None:
        seen = self.breaker.snapshot(self.now)
        assert (seen.state, seen.reopened) == (self.state, self.reopened)
        if self.state == "closed":
            assert (seen.calls, seen.failures, seen.slow_calls) == _sums(self.kept())
            assert seen.consecutive_failures == self.in_a_row
        if self.state == "open":
            assert seen.retry_in == self.ends - self.now
        if self.state == "half_open":
            assert seen.trials_out == len(self.out) <= self.policy.half_open_calls
        assert self.breaker.generation >= self.generation
        self.generation = self.breaker.generation
        assert all(ticket == self.generation for ticket in self.out)
        assert all(ticket < self.generation for ticket in self.stale)

    # The naive breaker

    def kept(self) -> list[tuple[int, bool, bool]]:
        if self.policy.window == "count":
            return self.calls[-self.policy.window_calls :]
        return [call for call in self.calls if call[0] > int(self.now) - BUCKETS]

    def must_open(self) -> bool:
        policy, (calls, failures, slow) = self.policy, _sums(self.kept())
        if policy.consecutive_failures and self.in_a_row >= policy.consecutive_failures:
            return True
        least = policy.minimum_calls if policy.window == "time" else min(policy.minimum_calls, policy.window_calls)
        return calls >= least and (
            failures / calls >= policy.failure_rate
            or (policy.slow_call_seconds is not None and slow / calls >= policy.slow_call_rate)
        )

    def opens(self, at: float, *, again: bool) -> None:
        self.reopened += again
        self.flips("open")
        self.ends = at + min(self.policy.open_seconds * self.policy.backoff**self.reopened, 16.0)

    def flips(self, state: str) -> None:
        self.state = state
        self.good = 0
        self.stale += self.out
        self.out = []

    def catch_up(self) -> None:
        timed = self.state == "half_open" and self.out and self.policy.half_open_seconds is not None
        if timed and self.now >= self.ends:
            self.opens(self.ends, again=True)
        if self.state == "open" and self.now >= self.ends:
            self.flips("half_open")


def _sums(calls: list[tuple[float, bool, bool]] | list[tuple[int, bool, bool]]) -> tuple[int, int, int]:
    return len(calls), sum(failed for _, failed, _ in calls), sum(slow for _, _, slow in calls)


TestAgainstTheNaive = AgainstTheNaive.TestCase
TestAgainstTheNaive.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
