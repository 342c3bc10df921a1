"""Who did what, and how often the configuration has changed."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """One change of the configuration, written in the transaction of the change."""

    class ActorKind(models.TextChoices):
        PERSON = "person", "Person"
        KEY = "key", "API key"
        COMMAND = "command", "Command line"
        SYSTEM = "system", "System"

    tenant = models.ForeignKey("registry.Tenant", models.SET_NULL, null=True, blank=True, related_name="audit_entries")
    at = models.DateTimeField(default=timezone.now)
    actor_kind = models.CharField(max_length=8, choices=ActorKind.choices)
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=40, help_text="created, changed, deleted, revoked, drained …")
    object_type = models.CharField(max_length=60)
    object_id = models.CharField(max_length=100)
    object_label = models.CharField(max_length=255)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    request_id = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["tenant", "-at"], name="audit_by_tenant"),
            models.Index(fields=["-at"], name="audit_by_time"),
            models.Index(fields=["object_type", "object_id"], name="audit_by_object"),
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_type} {self.object_label}"


class Revision(models.Model):
    """The number of the configuration; it grows with each change. One row.

    `origin` names this database: a store that was filled by another one accepts a smaller number from us.
    """

    number = models.PositiveBigIntegerField(default=0)
    origin = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="revision_is_one_row")]

    def __str__(self) -> str:
        return f"revision {self.number}"
