"""Who asks, for which tenant, and whether they may: the same answer for every view of the API.

Machines send a key, checked by the same `KeyRing` as on the gateway. People come with their staff session and have what
their role in the tenant gives them. A view says what it needs: `scopes = {"read": "gateway:read", "write": …}`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, User
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import MethodNotAllowed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from anumate.lib.problem import Problem
from registry.live.keys import DEFAULT_TENANT, KeyRecord, KeyRing, TenantRecord, public_id_of
from registry.live.node import get_current
from registry.live.presented import presented_key
from registry.models import ApiKey, Member, Tenant
from registry.requests import request_id
from registry.scopes import ALL, OF_ROLE
from registry.services.changes import Actor
from registry.services.keys import record_of

if TYPE_CHECKING:  # rest_framework.views imports this module, as the setting names it
    from rest_framework.views import APIView


@dataclass(frozen=True)
class Caller:
    """Who sent a request, in which tenant, and what they may do there.

    `platform` callers run the installation: superusers, and keys of tenant `default` with scope `admin`.
    """

    tenant: Tenant
    scopes: frozenset[str]
    actor: Actor
    platform: bool = False

    def allows(self, scope: str) -> bool:
        """Whether they may do this; `admin` may do everything within its tenant, as on the gateway."""
        return scope in self.scopes or "admin" in self.scopes


def caller_of(request: Request) -> Caller:
    """The caller that an authentication class found.

    Raises:
        Problem: api_key_missing, when nobody was named.
    """
    if isinstance(request.auth, Caller):
        return request.auth
    raise Problem("api_key_missing", "Send an API key as X-API-Key or Authorization: Bearer.")


class _Authentication(BaseAuthentication):
    def admit(self, request: Request, caller: Caller) -> tuple[Any, Caller]:
        request.tenant = caller.tenant  # type: ignore[attr-defined]  # views of every app read it
        return None, caller


class ApiKeyAuthentication(_Authentication):
    """A key in `X-API-Key` or `Authorization: Bearer`, or the anonymous reader where keys are not required."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        presented = presented_key(_key_fields(request))
        if presented is None:
            return self._without_key(request)
        record = verify(presented)
        record.require_network(request.META.get("REMOTE_ADDR", ""))
        return self.admit(request, _caller_with(record, request))

    def authenticate_header(self, request: Request) -> str:
        return 'Key realm="anumate"'

    def _without_key(self, request: Request) -> tuple[Any, Caller] | None:
        if settings.ENV.api_key_required or _session_user(request) is not None:
            return None
        return self.admit(request, _caller_with(KeyRing(settings.API_KEY_PEPPER).anonymous(), request))


class StaffSessionAuthentication(_Authentication):
    """A member of staff who is logged in to the admin. Writes need the CSRF token."""

    def authenticate(self, request: Request) -> tuple[Any, Caller] | None:
        user = _session_user(request)
        if user is None:
            return None
        _require_csrf_token(request)
        wanted = request.headers.get("X-Tenant") or request.query_params.get("tenant", "")
        tenant, scopes = _standing(user, wanted)
        actor = Actor.person(user, request_id(request))
        return self.admit(request, Caller(tenant, scopes, actor, platform=user.is_superuser))


class HasScope(BasePermission):
    """The view's `scopes` name what reading and writing need."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        caller = caller_of(request)
        needed = view.scopes.get("read" if request.method in SAFE_METHODS else "write")  # type: ignore[attr-defined]
        if needed is None:  # a view that only reads, or only writes
            raise MethodNotAllowed(request.method or "")
        if not caller.allows(needed):
            raise Problem("scope_missing", f"This needs scope {needed}.")
        return True


def _key_fields(request: Request) -> dict[bytes, bytes]:
    """Those that a key may stand in, as bytes again."""
    names = ("X-API-Key", "Authorization")
    # What no server would let in holds no key either.
    return {n.lower().encode(): request.headers[n].encode("latin-1", "replace") for n in names if n in request.headers}


def verify(presented: str) -> KeyRecord:
    """The one key check: with the ring this process follows, else with the one row that the key names.

    Raises:
        Problem: api_key_invalid, api_key_expired.
    """
    node = get_current()
    ring = node.keys if node is not None else ring_for(presented)
    return ring.verify(presented, time.time())


def ring_for(presented: str) -> KeyRing:
    """One that knows the key presented, if there is such a key, and nothing else. Asking it counts as no use."""
    rows = ApiKey.objects.filter(public_id=public_id_of(presented) or "", revoked_at=None).select_related("tenant")
    ring = KeyRing(settings.API_KEY_PEPPER)
    ring.replace([record_of(row) for row in rows], [TenantRecord(row.tenant.name, row.tenant.active) for row in rows])
    return ring


def _caller_with(record: KeyRecord, request: Request) -> Caller:
    scopes = frozenset(record.scopes)
    platform = record.tenant == DEFAULT_TENANT and "admin" in scopes
    wanted = request.headers.get("X-Tenant") or record.tenant
    if wanted != record.tenant and not platform:
        raise Problem("scope_missing", f"Only an admin key of tenant {DEFAULT_TENANT} acts for another tenant.")
    tenant = Tenant.objects.filter(name=wanted).first()
    if tenant is None:
        raise Problem("not_found", "There is no tenant by this name.")
    return Caller(tenant, scopes, Actor.key(record.name, record.id, request_id(request)), platform)


def _require_csrf_token(request: Request) -> None:
    try:
        SessionAuthentication().enforce_csrf(request)
    except PermissionDenied as error:
        raise Problem("csrf_failed", str(error.detail)) from None


def _session_user(request: Request) -> User | None:
    user: AbstractBaseUser | None = getattr(request._request, "user", None)
    return user if isinstance(user, User) and user.is_active and user.is_staff else None


def _standing(user: User, wanted: str) -> tuple[Tenant, frozenset[str]]:
    """The tenant a person works in now, and the scopes they have there."""
    if user.is_superuser:
        tenant = Tenant.objects.filter(name=wanted or DEFAULT_TENANT).first()
        if tenant is None:
            raise Problem("not_found", "There is no tenant by this name.")
        return tenant, ALL
    memberships = Member.objects.filter(user=user, tenant__active=True).select_related("tenant")
    if wanted:
        memberships = memberships.filter(tenant__name=wanted)
    member = memberships.first()
    if member is None and wanted:
        raise Problem("not_found", "There is no tenant by this name.")
    if member is None:
        raise Problem("scope_missing", "You are a member of no active tenant.")
    return member.tenant, OF_ROLE[member.role]
