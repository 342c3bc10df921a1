"""Cross-origin requests from browsers, answered by the gateway for all services (CORS_ORIGINS)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.proxy.exchange import Exchange, Header

_METHODS: Final = (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
_MAX_AGE: Final = (b"access-control-max-age", b"600")
_EXPOSED: Final = (b"access-control-expose-headers", b"X-Request-ID, RateLimit, RateLimit-Policy, Retry-After, Via")
_VARY: Final = (b"vary", b"Origin")


class Cors:
    """No origins: not our business, services answer for themselves."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)
        self._any = b"*" in self._origins
        self.enabled = bool(self._origins)

    def is_preflight(self, x: Exchange) -> bool:
        return self.enabled and x.method == "OPTIONS" and _field(x, b"access-control-request-method") is not None

    def preflight_fields(self, x: Exchange) -> list[Header]:
        """What a browser may send; empty, and so nothing, for an origin that is not listed."""
        allowed = self._allowed(x)
        if not allowed:
            return [_VARY]
        wanted = _field(x, b"access-control-request-headers")
        headers = [(b"access-control-allow-headers", wanted)] if wanted else []
        return [*allowed, _METHODS, *headers, _MAX_AGE]

    def fields(self, x: Exchange) -> list[Header]:
        allowed = self._allowed(x)
        return [*allowed, _EXPOSED] if allowed else []

    def _allowed(self, x: Exchange) -> list[Header]:
        origin = _field(x, b"origin")
        if origin is None:
            return []
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        if origin in self._origins:
            return [(b"access-control-allow-origin", origin), _VARY]
        return []


def _field(x: Exchange, name: bytes) -> bytes | None:
    return next((value for each, value in x.headers if each == name), None)
