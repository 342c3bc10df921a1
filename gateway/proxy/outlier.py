"""An instance that keeps failing while its like do not is left out for a while (as in Envoy's outlier detection).

This stands beside the breaker: the breaker protects a service that fails as a whole, this protects callers from the one
instance that does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from gateway.proxy.endpoints import Endpoint
from gateway.proxy.policies import Outlier

logger = logging.getLogger("anumate.gateway")


class Outliers:
    """Those of one service. A worker judges by what it saw itself; `members` are all its instances."""

    def __init__(self, policy: Outlier) -> None:
        self.policy = policy
        self.members: Collection[Endpoint] = ()
        self._out: dict[str, _Ejection] = {}

    def failed(self, endpoint: Endpoint, now: float) -> None:
        """An answer of it was a failure, or there was none."""
        most = self.policy.consecutive_failures
        if not most or endpoint.failed_in_a_row < most or self._is_out(endpoint.id, now):
            return
        out = sum(self._is_out(member.id, now) for member in self.members)
        if out >= max(1, int(self.policy.max_share * len(self.members))):
            return  # who is left would be overrun
        ejection = self._out.setdefault(endpoint.id, _Ejection())
        failures, endpoint.failed_in_a_row = endpoint.failed_in_a_row, 0
        endpoint.leave_out(ejection.again(self.policy, now), f"{failures} requests in a row failed.")
        logger.warning(
            "instance %s is left out for %g s: %d requests in a row failed",
            endpoint.name,
            ejection.until - now,
            failures,
        )

    def tidy(self) -> None:
        """Forget who is no longer a member."""
        ids = {member.id for member in self.members}
        self._out = {id: ejection for id, ejection in self._out.items() if id in ids}

    def _is_out(self, id: str, now: float) -> bool:
        ejection = self._out.get(id)
        return ejection is not None and now < ejection.until


class _Ejection:
    """How often it was left out; each time that it then did well for is forgiven."""

    __slots__ = ("times", "until")

    def __init__(self) -> None:
        self.times = 0
        self.until = 0.0

    def again(self, policy: Outlier, now: float) -> float:
        if self.times:
            self.times = max(0, self.times - int((now - self.until) / policy.base_seconds))
        self.times += 1
        self.until = now + min(policy.base_seconds * self.times, policy.max_seconds)
        return self.until
