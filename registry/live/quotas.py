"""How many requests a tenant may send to the lane. Each web worker counts its own share, and asks nobody."""

from __future__ import annotations

from registry.live.keys import TenantRecord


class Rates:
    """A token bucket for each tenant that has a limit: a second's worth at most, refilled all the time.

    `workers` is how many processes share a tenant's limit. The kernel spreads connections over them, and not evenly: a
    tenant near its limit may be refused by one worker while another still has tokens. That is cheaper than a round trip
    for each request. A share is at least one request a second.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = max(1, workers)
        self._buckets: dict[str, tuple[float, float]] = {}
        """By tenant: tokens, and when that was."""

    def take(self, tenant: TenantRecord, now: float) -> float:
        """0 when one more request is within the limit, else after how many seconds it would be."""
        if tenant.max_requests_per_second is None:
            return 0.0
        rate = max(1.0, tenant.max_requests_per_second / self._workers)
        tokens, at = self._buckets.get(tenant.name, (rate, now))
        tokens = min(rate, tokens + max(0.0, now - at) * rate)
        if tokens < 1.0:
            self._buckets[tenant.name] = tokens, now
            return (1.0 - tokens) / rate
        self._buckets[tenant.name] = tokens - 1.0, now
        return 0.0
