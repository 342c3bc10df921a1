from __future__ import annotations

from registry.live.keys import TenantRecord
from registry.live.quotas import Rates

TENANT = TenantRecord("acme", max_requests_per_second=10)


def taken(rates: Rates, now: float, times: int = 100, tenant: TenantRecord = TENANT) -> int:
    return sum(rates.take(tenant, now) == 0 for _ in range(times))


def test_a_second_has_no_more_than_its_requests_and_an_idle_minute_saves_none_up() -> None:
    rates = Rates()
    assert [taken(rates, now) for now in (0, 0.5, 60, 60)] == [10, 5, 10, 0]


def test_workers_share_the_limit_and_each_has_at_least_one() -> None:
    assert taken(Rates(workers=2), 0) == 5
    assert taken(Rates(workers=64), 0) == 1


def test_it_says_when_to_come_back() -> None:
    rates = Rates()
    taken(rates, 0)
    assert rates.take(TENANT, 0) == 0.1


def test_a_tenant_without_a_limit_has_none_and_others_keep_theirs() -> None:
    rates = Rates()
    taken(rates, 0)
    assert taken(rates, 0, tenant=TenantRecord("free")) == 100
    assert taken(rates, 0, tenant=TenantRecord("other", max_requests_per_second=3)) == 3


def test_a_limit_that_was_raised_counts_at_once() -> None:
    rates = Rates()
    taken(rates, 0)
    assert taken(rates, 1, tenant=TenantRecord("acme", max_requests_per_second=20)) == 20
