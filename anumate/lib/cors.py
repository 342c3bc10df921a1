"""Which pages' scripts may read our answers, the same on both ports. Pure: header fields in and out.

Unless a route says otherwise, no answer allows credentials: a page sends its key in a header that it sets itself, and
never rides on the cookie of somebody who is logged in. So `*` gives away nothing that a script elsewhere could not
fetch without a browser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Header = tuple[bytes, bytes]

REQUEST_METHOD: Final = b"access-control-request-method"
REQUEST_HEADERS: Final = b"access-control-request-headers"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EXPOSED: Final = ("X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After", "Via", "X-Anumate-Stale")
"""Our own fields, which a page may read."""

_VARY: Final = (b"vary", b"Origin")
_ANY: Final = (b"access-control-allow-origin", b"*")
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")


class Cors:
    """No origins: not our business, nothing is added and nothing answered.

    `headers` are the fields a page may send (none: whatever it asks for), `expose` those it may read, `max_age` the
    seconds a browser may keep a preflight's answer. `credentials` is for named origins only (Fetch standard).
    """

    def __init__(
        self,
        origins: Iterable[str],
        *,
        methods: Iterable[str] = METHODS,
        headers: Iterable[str] = (),
        expose: Iterable[str] = EXPOSED,
        credentials: bool = False,
        max_age: int = 600,
    ) -> None:
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._any = b"*" in self._origins
        self.enabled = bool(self._origins)
        self._headers = ", ".join(headers).encode()
        self._exposed = (b"access-control-expose-headers", ", ".join(expose).encode())
        self._allowed = [self._exposed, _CREDENTIALS] if credentials and not self._any else [self._exposed]
        self._preflight = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", b"%d" % max_age),
        ]

    def is_preflight(self, method: str, wanted_method: bytes | None) -> bool:
        """Whether a browser asks if it may ask."""
        return self.enabled and method == "OPTIONS" and bool(wanted_method)

    def fields(self, origin: bytes | None) -> list[Header]:
        """For every answer, preflights as well. What a cache may give to whom depends on who asked, listed or not."""
        if not self.enabled:
            return []
        if self._any:
            return [_ANY, self._exposed]
        if self._lists(origin):
            return [(b"access-control-allow-origin", origin or b""), *self._allowed, _VARY]
        return [_VARY]

    def preflight(self, origin: bytes | None, wanted_headers: bytes | None) -> list[Header]:
        """What a page of this origin may send, besides `fields`; nothing, for an origin that is not listed."""
        if not (self._any or self._lists(origin)):
            return []
        headers = self._headers or wanted_headers
        return [*self._preflight, (b"access-control-allow-headers", headers)] if headers else [*self._preflight]

    def _lists(self, origin: bytes | None) -> bool:
        return origin is not None and origin in self._origins
