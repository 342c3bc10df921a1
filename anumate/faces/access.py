"""Who may look at what: staff see the tenants they are members of, superusers see all."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

from registry.models import Tenant

DEFAULT_TENANT = "default"


def tenants_of(user: AbstractBaseUser | AnonymousUser) -> tuple[str, ...]:
    """The active tenants that this person may see, the one to start with first."""
    person: Any = user
    if not (person.is_authenticated and person.is_active and person.is_staff):
        return ()
    tenants = Tenant.objects.filter(active=True)
    if not person.is_superuser:
        tenants = tenants.filter(members__user=person)
    names = tenants.order_by("name").values_list("name", flat=True)
    return tuple(sorted(names, key=lambda name: name != DEFAULT_TENANT))


def choose_tenant(allowed: tuple[str, ...], wanted: str) -> str | None:
    """The tenant to show: the wanted one when it may be seen, the first when none is named."""
    if not wanted:
        return allowed[0] if allowed else None
    return wanted if wanted in allowed else None
