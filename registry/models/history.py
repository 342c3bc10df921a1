"""What happened to instances, kept for 90 days."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class InstanceEvent(models.Model):
    """An instance came, went or became another; or operators spoke about it. Names, no rows: it outlives both.

    Without `instance_id` it is about the whole service.
    """

    class Kind(models.TextChoices):
        JOINED = "joined", "Joined"
        LEFT = "left", "Left"
        VERSION_CHANGED = "version_changed", "Version changed"
        STATE_CHANGED = "state_changed", "State changed"
        STATE_ENDED = "state_ended", "State ended by itself"
        HELD = "held", "Lease held"
        HELD_ENDED = "held_ended", "Lease held no longer"

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="instance_events")
    service = models.CharField(max_length=63)
    instance_id = models.CharField(max_length=128, blank=True)
    kind = models.CharField(max_length=15, choices=Kind.choices)
    at = models.DateTimeField(default=timezone.now)
    version = models.CharField(max_length=64, blank=True)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "service", "instance_id", "kind", "at"], name="event_once")
        ]
        indexes = [
            models.Index(fields=["tenant", "service", "-at"], name="event_by_service"),
            models.Index(fields=["-at"], name="event_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.service}/{self.instance_id}: {self.kind}"
