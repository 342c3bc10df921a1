"""An instance as the gateway uses it: its connections, what balancing knows of it, and when to leave it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anumate_integration_service.balancing import Candidate
from gateway.proxy.rendezvous import digest
from gateway.proxy.upstream import Pool

if TYPE_CHECKING:
    from gateway.proxy.outlier import Outliers

REST_SECONDS: Final = 2.0
"""How long an instance that took no connection is left alone; twice as long each time in a row."""
REST_LIMIT: Final = 30.0
COLDEST: Final = 0.1
"""The least share that an instance gets in its slow start, of what it will get when it is warm."""


class Endpoint(Candidate):
    """`rests_until`: it is picked before only when all that are left rest. `careful_until`: before, a pick looks twice,
    for it may rest or be in its slow start.
    """

    __slots__ = (
        "_rest_seconds",
        "_warms_from",
        "_warms_until",
        "careful_until",
        "digest",
        "failed_in_a_row",
        "left_out_for",
        "name",
        "outliers",
        "pool",
        "rests_until",
        "service",
        "zone",
    )

    def __init__(self, service: str, id: str, weight: int, pool: Pool, zone: str = "") -> None:
        super().__init__(id, weight)
        self.service = service
        self.name = f"{service}/{id}"
        """How people are told which instance it was."""
        self.pool = pool
        self.zone = zone
        self.digest = digest(id)
        self.rests_until = self.careful_until = 0.0
        self.failed_in_a_row = 0
        self.left_out_for = ""
        self.outliers: Outliers | None = None
        self._rest_seconds = REST_SECONDS
        self._warms_from = self._warms_until = 0.0

    def named(self, head: bytes) -> bytes:
        """The head of a request that names no host, with this one's."""
        line, _, rest = head.partition(b"\r\n")
        host = f"[{self.pool.host}]" if ":" in self.pool.host else self.pool.host
        return b"%b\r\nhost: %b:%d\r\n%b" % (line, host.encode(), self.pool.port, rest)

    def rest(self, now: float) -> None:
        """It took no connection: leave it alone until health checks have had time to see that."""
        if now < self.rests_until:
            return  # requests that failed together are one failure
        self.leave_out(now + self._rest_seconds, "It took no connection.")
        self._rest_seconds = min(2 * self._rest_seconds, REST_LIMIT)

    def leave_out(self, until: float, why: str) -> None:
        self.left_out_for = why
        self.rests_until = max(self.rests_until, until)
        self.careful_until = max(self.careful_until, until)

    def reached(self) -> None:
        """It answered, so its next rest is a short one again."""
        self._rest_seconds = REST_SECONDS

    def observed(self, now: float, duration: float, failed: bool) -> None:
        super().observed(now, duration, failed)
        if failed:
            self.broke_off(now)

    def broke_off(self, now: float) -> None:
        """One more answer that was a failure, or did not come to its end."""
        self.failed_in_a_row += 1
        if self.outliers is not None:
            self.outliers.failed(self, now)

    def served(self) -> None:
        """A good answer has come to its end."""
        self.failed_in_a_row = 0

    def start_slowly(self, began: float, seconds: float) -> None:
        """Give it its share of the requests little by little, until `seconds` after it `began`."""
        self._warms_from, self._warms_until = began, began + seconds
        self.careful_until = max(self.careful_until, self._warms_until)

    def warmth(self, now: float) -> float:
        """The part of its share that it may get by now."""
        if now >= self._warms_until:
            return 1.0
        return max(COLDEST, (now - self._warms_from) / (self._warms_until - self._warms_from))
