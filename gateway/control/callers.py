"""Who a request comes from, and may they: judged as the data plane judges it, but for tokens."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from django.conf import settings

from anumate.lib.problem import Problem
from gateway.proxy.entitlement import one_key, presented_token, require_route, require_scopes, scopes_of
from gateway.proxy.exchange import Exchange
from gateway.proxy.rewriting import without_keys
from gateway.proxy.table import Route
from registry.auth import ring_for
from registry.live.keys import ANONYMOUS, KeyRecord, public_id_of
from registry.live.presented import bearer
from registry.models import ApiKey
from registry.services.keys import record_of

_UNVERIFIED: Final = "The request comes with a JWT, which is not verified here: whether it may pass is not said."


class Admission(NamedTuple):
    """What the route asks of a caller; `admitted` is None where there is no key to judge."""

    auth_required: bool
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    admitted: bool | None
    sentence: str
    code: str | None = None
    """Of the refusal."""


def judged(route: Route, x: Exchange, key: str) -> tuple[Admission, KeyRecord | None]:
    """Whether the caller may use the route, and the record of who may. Without a `key`, or the public id of one, that
    counts which the request brings.
    """
    methods, scopes = route.auth.methods, scopes_of(route)
    if not route.auth_required or route.redirect.status:
        return Admission(False, methods, scopes, None, "Nobody has to prove who they are."), None
    try:
        client = _named(route, key) if key else _brought(route, x)
        if isinstance(client, str):
            return Admission(True, methods, scopes, None, client), None
        require_route(client, route, lambda: x.peer)
        require_scopes(client, scopes)
    except Problem as problem:
        return Admission(True, methods, scopes, False, problem.detail, problem.code), None
    sentence = f"The key {client.name} may use the route." if client.id else "Who brings no key may use the route, too."
    return Admission(True, methods, scopes, True, sentence), client


def _named(route: Route, key: str) -> KeyRecord:
    """The record of the key, or of the tenant's key of this public id. Raises Problem."""
    if "key" not in route.auth.methods:
        raise _no_keys()
    now = time.time()
    if public_id_of(key) is not None:
        return ring_for(key).verify(key, now)
    rows = ApiKey.objects.filter(public_id=key, tenant__name=route.tenant, revoked_at=None).select_related("tenant")
    row = rows.first()
    if row is None:
        raise Problem("api_key_invalid", "This API key is not known here, or was revoked.")
    record = record_of(row)
    if record.expires_at and record.expires_at <= now:
        raise Problem("api_key_expired", "This API key has expired.")
    return record


def _brought(route: Route, x: Exchange) -> KeyRecord | str:
    """The record of the key among the fields or in the query; a sentence where there is none to judge.

    Raises:
        Problem: as the data plane.
    """
    methods, (_, in_query) = route.auth.methods, without_keys(route, x.query)
    if "jwt" in methods and presented_token(route, x.known, in_query) is not None:
        return _UNVERIFIED
    if "key" not in methods:
        if b"x-api-key" in x.known or bearer(x.known.get(b"authorization", b"")):
            raise _no_keys()
    elif key := one_key(x.known, in_query):
        return ring_for(key).verify(key, time.time())
    elif not settings.ENV.api_key_required:
        return ANONYMOUS
    ways = " or ".join("an API key" if method == "key" else "a JWT" for method in methods)
    return f"The caller needs {ways} with {', '.join(scopes_of(route))}."


def _no_keys() -> Problem:
    return Problem("api_key_missing", "The route takes a JWT, and no API key.")
