"""Errors as `application/problem+json` (RFC 9457), the same on both ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

CONTENT_TYPE = "application/problem+json"
TYPE_BASE = "https://docs.anumate.com/problems/"


class Kind(NamedTuple):
    status: int
    title: str


KINDS: dict[str, Kind] = {
    "malformed_request": Kind(400, "The request cannot be read"),
    "api_key_missing": Kind(401, "An API key is needed"),
    "api_key_invalid": Kind(401, "The API key is not valid"),
    "api_key_expired": Kind(401, "The API key has expired"),
    "scope_missing": Kind(403, "The key may not do this"),
    "csrf_failed": Kind(403, "The CSRF token is missing or wrong"),
    "route_not_found": Kind(404, "No route matches"),
    "not_found": Kind(404, "Not found"),
    "method_not_allowed": Kind(405, "The method is not allowed here"),
    "request_timeout": Kind(408, "The request took too long to arrive"),
    "conflict": Kind(409, "The request conflicts with what is there"),
    "payload_too_large": Kind(413, "The body is too large"),
    "uri_too_long": Kind(414, "The address is too long"),
    "unsupported_media_type": Kind(415, "The media type is not supported"),
    "validation_failed": Kind(422, "The request is not valid"),
    "rate_limited": Kind(429, "Too many requests"),
    "quota_exceeded": Kind(429, "The quota is used up"),
    "headers_too_large": Kind(431, "The header fields are too large"),
    "internal_error": Kind(500, "Something went wrong here"),
    "route_unusable": Kind(500, "The route cannot be served"),
    "upstream_connect_failed": Kind(502, "The service could not be reached"),
    "upstream_malformed": Kind(502, "The service sent a malformed answer"),
    "upstream_closed": Kind(502, "The service closed the connection early"),
    "upstream_untrusted": Kind(502, "The service could not prove who it is"),
    "no_healthy_instance": Kind(503, "No instance can take the request"),
    "circuit_open": Kind(503, "The circuit breaker is open"),
    "draining": Kind(503, "The gateway is shutting down"),
    "overloaded": Kind(503, "Too many requests are in flight"),
    "unavailable": Kind(503, "A part this needs is away"),
    "upstream_timeout": Kind(504, "The service did not answer in time"),
    "loop_detected": Kind(508, "The request goes round in a circle"),
}
"""Every stable `code` with its status and title. A code is a promise: it may be added, never renamed."""


class Problem(Exception):
    """What went wrong, ready to be shown.

    `code` is one of `KINDS`; `detail` is one sentence for the person; `errors` names the fields at fault, each as
    `{"pointer": "/endpoints/http/port", "detail": "…"}`; `headers` are added to the answer (`Retry-After`, `Allow`).
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = members
        if self.kind.status == 401:
            self.headers.setdefault("WWW-Authenticate", 'Key realm="anumate"')

    @property
    def status(self) -> int:
        return self.kind.status

    def body(self, request_id: str = "") -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": TYPE_BASE + self.code,
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.code,
            "detail": self.detail,
        }
        if request_id:
            body["request_id"] = request_id
        if self.errors:
            body["errors"] = self.errors
        body.update(self.members)
        return body

    def encode(self, request_id: str = "") -> bytes:
        return msgspec.json.encode(self.body(request_id))
