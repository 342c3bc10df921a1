"""Audit of what is no change of a row: an operator's command to the live state."""

from __future__ import annotations

from typing import Any

from django.db import models

from registry.models import AuditEntry
from registry.services.changes import Actor, tenant_of


def note(actor: Actor, action: str, about: models.Model, *, reason: str = "", after: Any = None) -> AuditEntry:
    """Write down that `actor` did `action` to `about`."""
    return AuditEntry.objects.create(
        tenant=tenant_of(about),
        actor_kind=actor.kind,
        actor=actor.name[:200],
        action=action,
        object_type=about._meta.label,
        object_id=str(about.pk),
        object_label=str(about)[:255],
        after=after,
        reason=reason[:500],
        request_id=actor.request_id,
    )
