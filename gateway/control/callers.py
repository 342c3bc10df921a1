"""Who a request comes from, and may they: the data plane's own check, of keys and issuers as their rows are now."""

from __future__ import annotations

import time
from typing import NamedTuple

from django.conf import settings

from anumate.lib.problem import Problem
from gateway.control.tokens import patient_tokens
from gateway.proxy.auth import authenticate
from gateway.proxy.entitlement import scopes_of
from gateway.proxy.exchange import Exchange
from gateway.proxy.rewriting import without_keys
from gateway.proxy.table import Route
from gateway.proxy.tokens import Consumer
from registry.auth import ring_for
from registry.live.keys import KeyRecord, KeyRing, public_id_of
from registry.models import ApiKey
from registry.services.keys import record_of


class Admission(NamedTuple):
    """What the route asks of a caller; `admitted` is None where there is nobody to judge."""

    auth_required: bool
    methods: tuple[str, ...]
    scopes: tuple[str, ...]
    admitted: bool | None
    sentence: str
    code: str | None = None
    """Of the refusal."""
    consumer: str | None = None
    """Who may: a key's public id, or a token's subject."""
    issuer: str | None = None
    """Of the token."""


class _Guarded(NamedTuple):
    route: Route
    scopes: tuple[str, ...]


def judged(route: Route, x: Exchange, key: str) -> tuple[Admission, KeyRecord | None]:
    """Whether the caller may use the route, and the record of who may. Without a `key`, or the public id of one, that
    counts which the request brings.
    """
    asked = _Guarded(route, scopes_of(route))
    if not route.auth_required or route.redirect.status:
        sentence = "Nobody has to prove who they are."
        return Admission(False, route.auth.methods, asked.scopes, None, sentence), None
    if key:
        _bring(route, x, key)
    proves = _brings_a_proof(route, x)
    try:
        client = authenticate(_Rows(route.tenant, key), patient_tokens(), asked, x, time.time(), lambda x: x.peer)
    except Problem as problem:
        if problem.code == "api_key_missing" and not proves:
            return Admission(True, route.auth.methods, asked.scopes, None, _wanted(asked)), None
        return Admission(True, route.auth.methods, asked.scopes, False, problem.detail, problem.code), None
    assert client is not None  # noqa: S101  # or the route would ask for nobody
    return Admission(True, route.auth.methods, asked.scopes, True, *_welcome(client)), client


class _Rows(KeyRing):
    """The keys that there are. Of the tenant's key that is `told` of, its public id is enough."""

    def __init__(self, tenant: str, told: str) -> None:
        super().__init__(settings.API_KEY_PEPPER, key_required=settings.ENV.api_key_required)
        self._tenant = tenant
        self._told = told

    def verify(self, presented: str | None, now: float) -> KeyRecord:
        if not presented:
            return super().verify(presented, now)
        if self._told and public_id_of(presented) is None:
            rows = ApiKey.objects.filter(public_id=presented, tenant__name=self._tenant, revoked_at=None)
            if row := rows.select_related("tenant").first():
                record = record_of(row)
                self.use(record, now)
                return record
        return ring_for(presented).verify(presented, now)


def _bring(route: Route, x: Exchange, key: str) -> None:
    """Have the request come with this key in place of its own."""
    x.query, _ = without_keys(route, x.query)
    others = {name: value for name, value in x.known.items() if name != b"authorization"}
    x.known = {**others, b"x-api-key": key.encode("latin-1", "replace")}


def _brings_a_proof(route: Route, x: Exchange) -> bool:
    """Whether there is something among its fields or in its query by which it could be told who asks."""
    _, in_query = without_keys(route, x.query)
    return bool(x.known.get(b"x-api-key") or x.known.get(b"authorization") or any(in_query))


def _wanted(asked: _Guarded) -> str:
    ways = " or ".join("an API key" if method == "key" else "a JWT" for method in asked.route.auth.methods)
    return f"The caller needs {ways} with {', '.join(asked.scopes)}."


def _welcome(client: KeyRecord) -> tuple[str, None, str | None, str | None]:
    """The rest of what is said of somebody who may."""
    if isinstance(client, Consumer):
        sentence = f"The token of {client.subject} from {client.issuer} may use the route."
        return sentence, None, client.subject, client.issuer
    if not client.id:
        return "Who brings no key may use the route, too.", None, None, None
    return f"The key {client.name} may use the route.", None, client.id, None
