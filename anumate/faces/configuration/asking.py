"""Who asks, when a command does."""

from __future__ import annotations

from django.core.management.base import CommandError

from anumate.faces.configuration.sections import Asker
from registry.auth import Caller
from registry.models import Tenant
from registry.scopes import ALL
from registry.services.changes import Actor


def command_asker(command: str, tenant: str) -> Asker:
    """Who runs `manage.py command` for a tenant.

    Raises:
        CommandError: there is no such tenant.
    """
    found = Tenant.objects.filter(name=tenant).first()
    if found is None:
        raise CommandError(f"There is no tenant {tenant}.")
    return Asker(Caller(found, ALL, Actor.command(command), platform=True))
