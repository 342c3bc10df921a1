"""Which pages' scripts may read our answers (CORS_ORIGINS), the same on both ports. Pure: header fields in and out.

No answer ever allows credentials: a page sends its key in a header that it sets itself, and never rides on the cookie
of somebody who is logged in. So `*` gives away nothing that a script elsewhere could not fetch without a browser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Header = tuple[bytes, bytes]

REQUEST_METHOD: Final = b"access-control-request-method"
REQUEST_HEADERS: Final = b"access-control-request-headers"

_METHODS: Final = (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_MAX_AGE: Final = (b"access-control-max-age", b"600")
_EXPOSED: Final = (
    b"access-control-expose-headers",
    b"X-Request-ID, RateLimit, RateLimit-Policy, Retry-After, Via, X-Anumate-Stale",
)
_VARY: Final = (b"vary", b"Origin")
_ANY: Final = (b"access-control-allow-origin", b"*")


class Cors:
    """No origins: not our business, nothing is added and nothing answered."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower().encode() for origin in origins)
        self._any = b"*" in self._origins
        self.enabled = bool(self._origins)

    def is_preflight(self, method: str, wanted_method: bytes | None) -> bool:
        """Whether a browser asks if it may ask."""
        return self.enabled and method == "OPTIONS" and bool(wanted_method)

    def fields(self, origin: bytes | None) -> list[Header]:
        """For every answer, preflights as well. What a cache may give to whom depends on who asked, listed or not."""
        if not self.enabled:
            return []
        if self._any:
            return [_ANY, _EXPOSED]
        if origin is not None and origin in self._origins:
            return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]
        return [_VARY]

    def preflight(self, origin: bytes | None, wanted_headers: bytes | None) -> list[Header]:
        """What a page of this origin may send, besides `fields`; nothing, for an origin that is not listed."""
        if not (self._any or (origin is not None and origin in self._origins)):
            return []
        headers = [(b"access-control-allow-headers", wanted_headers)] if wanted_headers else []
        return [_METHODS, *headers, _MAX_AGE]
