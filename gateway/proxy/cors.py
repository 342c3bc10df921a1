"""Cross-origin requests from browsers, answered by the gateway for all services (CORS_ORIGINS)."""

from __future__ import annotations

from collections.abc import Iterable

from anumate.lib import cors
from gateway.proxy.exchange import Exchange, Header


class Cors:
    """The rules of both ports, asked about an exchange. No origins: services answer for themselves."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._rules = cors.Cors(origins)
        self.enabled = self._rules.enabled

    def is_preflight(self, x: Exchange) -> bool:
        return self.enabled and self._rules.is_preflight(x.method, _field(x, cors.REQUEST_METHOD))

    def preflight_fields(self, x: Exchange) -> list[Header]:
        """What a page may send. Whether its origin is listed say `fields`, which every answer has."""
        return self._rules.preflight(_field(x, b"origin"), _field(x, cors.REQUEST_HEADERS))

    def fields(self, x: Exchange) -> list[Header]:
        return self._rules.fields(_field(x, b"origin"))


def _field(x: Exchange, name: bytes) -> bytes | None:
    return next((value for each, value in x.headers if each == name), None)
