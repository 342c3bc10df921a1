"""What a key or a person may be allowed to do, in words for people."""

from __future__ import annotations

from typing import Final

from registry.live.keys import SCOPES
from registry.models import Member

MEANINGS: Final = {
    "registry:read": "See services and instances",
    "registry:write": "Register services, change their state",
    "health:read": "See health and incidents",
    "health:write": "Configure health checks",
    "gateway:invoke": "Call services through the gateway",
    "gateway:read": "See routes, policies, breakers and metrics",
    "gateway:write": "Change routes, policies and breakers",
    "admin": "All of that, and manage API keys and tenants",
}
ALL: Final = frozenset(SCOPES)
_READ: Final = frozenset(scope for scope in SCOPES if scope.endswith(":read"))
_WRITE: Final = frozenset(scope for scope in SCOPES if scope.endswith(":write"))

OF_ROLE: Final[dict[str, frozenset[str]]] = {
    Member.Role.VIEWER: _READ,
    Member.Role.OPERATOR: _READ | _WRITE,
    Member.Role.OWNER: ALL,
}
