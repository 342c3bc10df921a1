"""The transports' core without a network: in whatever order things happen, nothing is lost and nothing given twice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anumate_integration_service.balancing import STRATEGIES
from anumate_integration_service.breaker import BreakerPolicy, Outcome
from anumate_integration_service.errors import CircuitOpen, NoInstances
from anumate_integration_service.instances import Endpoint, ServiceInstance
from anumate_integration_service.retries import RetryPolicy
from anumate_integration_service.testing import FakeRegistry
from anumate_integration_service.upstreams import Address, Attempt, Call, Question, Upstreams, address_of

QUESTION = Question("orders")
POLICY = BreakerPolicy(consecutive_failures=2, open_seconds=4, half_open_calls=1, half_open_seconds=8)
HTTP = Endpoint("http", "10.0.0.1", 80)
HTTPS = Endpoint("https", "10.0.0.1", 443)
GRPC = Endpoint("grpc", "10.0.0.1", 50051)


@pytest.mark.parametrize(
    ("endpoints", "scheme", "endpoint", "found"),
    [
        ({"a": HTTPS, "b": HTTP}, "http", "", ("http", "10.0.0.1", 80)),
        ({"a": HTTPS, "b": HTTP}, "https", "", ("https", "10.0.0.1", 443)),
        ({"a": HTTPS}, "http", "", ("https", "10.0.0.1", 443)),
        ({"a": HTTP}, "https", "", None),
        ({"a": HTTP}, "https", "a", None),
        ({"a": HTTPS}, "http", "a", ("https", "10.0.0.1", 443)),
        ({"grpc": GRPC}, "http", "grpc", ("http", "10.0.0.1", 50051)),
        ({"grpc": GRPC}, "http", "", None),
        ({}, "http", "", None),
    ],
)
def test_an_endpoint_is_chosen_by_scheme_or_name_and_never_less_safe_than_asked(
    endpoints: dict[str, Endpoint], scheme: str, endpoint: str, found: tuple[str, str, int] | None
) -> None:
    assert address_of(ServiceInstance("orders", "o-1", endpoints=endpoints), scheme, endpoint) == found


def test_a_request_is_not_sent_again_to_one_who_left_meanwhile() -> None:
    registry, now = FakeRegistry(), [0.0]
    first, other = (registry.add("orders", f"http://10.0.0.{n}", instance_id=f"o-{n}", version="1") for n in (1, 2))
    core = Upstreams(registry, lambda address: object(), strategy="round_robin", clock=lambda: now[0])
    call, attempt = core.first(QUESTION)
    assert attempt.upstream.instance is first
    registry.remove(other)
    core.first(Question("orders", version="1"))  # another question notices
    assert core.closable() is not None
    assert core.again(call) is None


class AnyOrder(RuleBasedStateMachine):
    """Instances come and go while requests are under way, end well or badly, and are sent again."""

    @initialize(strategy=st.sampled_from(sorted(STRATEGIES)))
    def begin(self, strategy: str) -> None:
        self.now = 0.0
        self.registry = FakeRegistry()
        self.pools: list[object] = []
        self.closed: list[object] = []
        self.out: list[tuple[Call, Attempt]] = []
        self.requests = self.retries = 0
        self.longest_wait = 0.0
        self.core = Upstreams(
            self.registry,
            self.make_pool,
            strategy=strategy,
            breaker=POLICY,
            retries=RetryPolicy(attempts=3, ratio=0.5, floor=1, window_seconds=1e9),
            clock=lambda: self.now,
            rng=random.Random(5).random,
        )

    def make_pool(self, address: Address) -> object:
        self.pools.append(object())
        return self.pools[-1]

    @rule(number=st.integers(1, 4), port=st.sampled_from([80, 81]), weight=st.integers(0, 3))
    def one_comes_or_moves(self, number: int, port: int, weight: int) -> None:
        self.registry.add("orders", f"http://10.0.0.{number}:{port}", instance_id=f"o-{number}", weight=weight)

    @precondition(lambda self: self.registry.instances("orders"))
    @rule(which=st.integers(0, 9))
    def one_leaves(self, which: int) -> None:
        there = self.registry.instances("orders")
        self.registry.remove(there[which % len(there)])

    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(["", "a", "b"]))
    def a_request_comes(self, key: str) -> None:
        there = {(each.instance_id, each.url) for each in self.registry.instances("orders")}
        try:
            call, attempt = self.core.first(QUESTION, key)
        except NoInstances:
            assert not there
            return
        except CircuitOpen as error:
            assert there
            self.requests += 1
            self.longest_wait = max(self.longest_wait, error.retry_after)
            return
        self.requests += 1
        _, host, port = attempt.upstream.address
        assert (attempt.upstream.id, f"http://{host}:{port}") in there
        assert attempt.upstream.pool not in self.closed
        self.out.append((call, attempt))

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9), outcome=st.sampled_from(list(Outcome)), again=st.booleans())
    def a_request_ends(self, which: int, outcome: Outcome, again: bool) -> None:
        call, attempt = self.out.pop(which % len(self.out))
        self.core.vote(attempt, outcome)
        self.core.end(attempt)
        self.core.end(attempt)
        following = self.core.again(call) if again else None
        if following is not None:
            self.retries += 1
            assert len(call.tried) == len(set(call.tried)) <= 3
            assert following.upstream is not attempt.upstream
            self.out.append((call, following))

    @rule()
    def connections_of_who_left_are_closed(self) -> None:
        while (pool := self.core.closable()) is not None:
            self.closed.append(pool)

    @invariant()
    def in_flight_is_what_is_out(self) -> None:
        counted = Counter(attempt.upstream for _, attempt in self.out)
        for upstream in {*counted, *self.core._upstreams.values()}:
            assert upstream.in_flight == counted[upstream]

    @invariant()
    def connections_are_closed_once_and_never_while_in_use(self) -> None:
        assert len(self.closed) == len(set(self.closed))
        assert not {attempt.upstream.pool for _, attempt in self.out} & set(self.closed)

    @invariant()
    def retries_stay_within_their_budget(self) -> None:
        assert self.retries <= 1 + 0.5 * self.requests

    @invariant()
    def nobody_is_sent_away_for_longer_than_a_breaker_stays_open(self) -> None:
        assert 0 <= self.longest_wait <= POLICY.open_seconds

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for _, attempt in self.out:
            self.core.vote(attempt, Outcome.CANCELLED)
            self.core.end(attempt)
        self.connections_of_who_left_are_closed()
        assert sorted(map(id, [*self.closed, *self.core.drop_all()])) == sorted(map(id, self.pools))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
