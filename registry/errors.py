"""Every refusal of the control plane's API as problem+json, with one log line each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import IntegrityError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.log import log_response
from django.views import defaults
from django.views.csrf import csrf_failure as django_csrf_failure
from rest_framework import exceptions as drf
from rest_framework.request import Request
from rest_framework.settings import api_settings

from anumate.lib.problem import CONTENT_TYPE, Problem
from anumate.lib.redis import UNAVAILABLE
from registry.requests import request_id

logger = logging.getLogger("anumate.api")

API_PARTS = frozenset({"v1", "api"})
_TYPES = ["text/html", "application/json", CONTENT_TYPE]
_INVALID = "Some fields are not valid."


def problem_response(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler. None lets an unforeseen exception reach `server_error`."""
    problem = as_problem(exc)
    return None if problem is None else answer(problem, context["request"])


def as_problem(exc: Exception) -> Problem | None:
    """What the API says of an exception; None of one that nobody foresaw."""
    match exc:
        case Problem():
            return exc
        case drf.ValidationError():
            return Problem("validation_failed", _INVALID, errors=list(_pointed(exc.detail)))
        case ModelValidationError():
            return Problem("validation_failed", _INVALID, errors=list(_pointed(_of_model(exc))))
        case drf.ParseError():
            return Problem("malformed_request", str(exc.detail))
        case RequestDataTooBig():
            return Problem("payload_too_large", "The body is larger than this API reads.")
        case drf.UnsupportedMediaType():
            return Problem("unsupported_media_type", "Send the body as application/json.")
        case drf.MethodNotAllowed():
            return Problem("method_not_allowed", str(exc.detail))
        case drf.NotAuthenticated():
            return Problem("api_key_missing", "Send an API key as X-API-Key or Authorization: Bearer.")
        case drf.AuthenticationFailed():
            return Problem("api_key_invalid", str(exc.detail))
        case drf.PermissionDenied() | PermissionDenied():
            return Problem("scope_missing", str(exc) or "This is not allowed.")
        case drf.NotFound() | Http404():
            return Problem("not_found", "There is nothing here by this name.")
        case ProtectedError() | RestrictedError():
            return Problem("conflict", f"It is still used by {_users_of(exc)}.")
        case IntegrityError():
            return Problem("conflict", "Another one of this name is there already.")
        case _ if isinstance(exc, UNAVAILABLE):
            return Problem("unavailable", "The live state is away; try again soon.", headers={"Retry-After": "1"})
    return None


def answer(problem: Problem, request: HttpRequest | Request) -> HttpResponse:
    """The response to a refused request, logged once."""
    known = request_id(request)
    response = HttpResponse(
        problem.encode(known), status=problem.status, content_type=CONTENT_TYPE, headers=problem.headers
    )
    plain = request._request if isinstance(request, Request) else request
    log_response(
        "refused %s %s: %s %s%s request_id=%s",
        plain.method,
        plain.path,
        problem.code,
        problem.detail,
        "".join(f" {error.get('pointer')}: {error.get('detail')}" for error in problem.errors[:5]),
        known,
        response=response,
        request=plain,
        logger=logger,
        level="error" if problem.status == 500 else "warning",
        exception=sys.exc_info()[1] if problem.status == 500 else None,
    )
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not _is_api(request):
        return defaults.bad_request(request, exception)
    return answer(as_problem(exception) or Problem("malformed_request", "The request cannot be read."), request)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not _is_api(request):
        return _logged(defaults.permission_denied(request, exception), request, str(exception))
    return answer(Problem("scope_missing", "This is not allowed."), request)


def _logged(response: HttpResponse, request: HttpRequest, reason: str) -> HttpResponse:
    """A page's refusal as one line in the log; Django would add a traceback of what is no defect."""
    log_response(
        "refused %s %s: %d %s request_id=%s",
        request.method,
        request.path,
        response.status_code,
        reason,
        request_id(request),
        response=response,
        request=request,
        logger=logger,
        level="warning",
    )
    return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if not _is_api(request):
        return defaults.page_not_found(request, exception)
    return answer(Problem("not_found", "There is nothing at this address."), request)


def server_error(request: HttpRequest) -> HttpResponse:
    """The log gets the traceback; the caller gets the request id to ask about."""
    if not _is_api(request):
        return defaults.server_error(request)
    return answer(Problem("internal_error", "Something went wrong here; the log knows more."), request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    if not _is_api(request):
        return django_csrf_failure(request, reason)
    return answer(Problem("csrf_failed", reason or "The CSRF token is missing."), request)


def _is_api(request: HttpRequest) -> bool:
    """Whether a program asks, by the address or by what it would rather read; who takes anything gets a page."""
    return request.path.lstrip("/").partition("/")[0] in API_PARTS or request.get_preferred_type(_TYPES) in _TYPES[1:]


def _users_of(exc: ProtectedError | RestrictedError) -> str:
    objects = exc.protected_objects if isinstance(exc, ProtectedError) else exc.restricted_objects
    named = sorted({f"{each._meta.verbose_name} {each}" for each in objects})
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def _of_model(exc: ModelValidationError) -> Any:
    return exc.message_dict if hasattr(exc, "error_dict") else exc.messages


def _pointed(detail: Any, pointer: str = "") -> Iterator[dict[str, str]]:
    """DRF's nested errors, each with the JSON pointer (RFC 6901) of the value at fault."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            own = name in {api_settings.NON_FIELD_ERRORS_KEY, "__all__"}
            step = "" if own else "/" + str(name).replace("~", "~0").replace("/", "~1")
            yield from _pointed(inner, pointer + step)
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            nested = isinstance(inner, (dict, list))
            yield from _pointed(inner, f"{pointer}/{index}" if nested else pointer)
    else:
        yield {"pointer": _text(pointer), "detail": _text(str(detail))}


def _text(said: str) -> str:
    """What of it UTF-8 can say: JSON may name a field by half a character."""
    return said.encode("utf-8", "replace").decode()
