"""What every request of the control plane carries: its id, in the answer, in errors, in the audit and in the log."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse

HEADER: Final = "X-Request-ID"
_acceptable = re.compile(r"[A-Za-z0-9._:-]{1,64}").fullmatch


def request_id(request: object) -> str:
    """The id of a request; a client's own when it is plain and short, else one made here. The same on every call."""
    request = getattr(request, "_request", request)  # a DRF request hangs on Django's
    if not isinstance(request, HttpRequest):
        return ""
    known = getattr(request, "request_id", None)
    if known is None:
        known = fit_id(request.headers.get(HEADER, ""))
        request.request_id = known  # type: ignore[attr-defined]
    return str(known)


def fit_id(offered: str) -> str:
    """What a client calls its request, when that is plain and short; else a new id."""
    return offered if _acceptable(offered) else secrets.token_hex(16)


class RequestIdMiddleware:
    """Gives every answer the id of its request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        known = request_id(request)
        response = self.get_response(request)
        response.headers.setdefault(HEADER, known)
        return response
