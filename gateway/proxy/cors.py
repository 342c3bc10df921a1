"""Cross-origin requests from browsers, answered by the gateway for its services, as the route or CORS_ORIGINS says."""

from __future__ import annotations

from collections.abc import Iterable

from anumate.lib import cors
from gateway.proxy.exchange import Exchange
from gateway.proxy.request import Header
from gateway.proxy.table import Route


class Cors:
    """Rules, asked about an exchange. Those of no origin say nothing: services answer for themselves."""

    def __init__(self, rules: cors.Cors) -> None:
        self._rules = rules
        self.enabled = rules.enabled

    @classmethod
    def anywhere(cls, origins: Iterable[str]) -> Cors:
        """Where a route has no rules of its own."""
        return cls(cors.Cors(origins))

    def preflight_fields(self, x: Exchange) -> list[Header]:
        """What a page may send. Whether its origin is listed say `fields`, which every answer has."""
        return self._rules.preflight(_field(x, b"origin"), _field(x, cors.REQUEST_HEADERS))

    def fields(self, x: Exchange) -> list[Header]:
        return self._rules.fields(_field(x, b"origin"))


def of_route(route: Route) -> Cors | None:
    """A route's own rules, if it has any."""
    policy = route.cors
    if not policy.origins:
        return None
    rules = cors.Cors(
        policy.origins,
        methods=policy.methods or route.methods or cors.METHODS,
        headers=policy.headers,
        expose=(*cors.EXPOSED, *policy.expose),
        credentials=policy.credentials,
        max_age=policy.max_age,
    )
    return Cors(rules)


def asked_method(x: Exchange) -> str:
    """The method that a browser asks leave for in a preflight (Fetch standard); empty when it asks for none."""
    if x.method != "OPTIONS":
        return ""
    return (_field(x, cors.REQUEST_METHOD) or b"").decode("latin-1")


def _field(x: Exchange, name: bytes) -> bytes | None:
    return next((value for each, value in x.headers if each == name), None)
