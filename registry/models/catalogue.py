"""Services, zones, and the projection of their instances. The truth about instances is the live state in Redis."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from registry.models.access import Tenant, label
from registry.names import INSTANCE_ID, ZONE


class OperatorState(models.Model):
    """What an operator wants of an instance, a service or a zone: the operator's word.

    It wins over what an instance says of itself. Of several words about an instance the nearest one decides: its own,
    then its service's, then its zone's; `enabled` is a word too. A word that has ended, or was never said (no
    `state_since`), decides nothing.
    """

    class State(models.TextChoices):
        ENABLED = "enabled", "Enabled"
        DRAINING = "draining", "Draining: no new requests"
        MAINTENANCE = "maintenance", "Maintenance: no requests, no alerts"

    state = models.CharField(max_length=11, choices=State.choices, default=State.ENABLED)
    state_reason = models.CharField(max_length=500, blank=True)
    state_actor = models.CharField(max_length=200, blank=True, editable=False)
    state_since = models.DateTimeField(null=True, blank=True, editable=False)
    state_expires_at = models.DateTimeField(null=True, blank=True, help_text="When it ends by itself.")
    state_ending_at = models.DateTimeField(
        null=True, editable=False, db_index=True, help_text="The end that the history has yet to tell of."
    )
    state_weight = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(1000)],
        help_text="In place of the weight that instances registered with, 0 to 1000. Empty: theirs.",
    )
    state_before = models.JSONField(
        null=True, blank=True, editable=False, help_text="The word before this one, for undo; {}: there was none."
    )

    class Meta:
        abstract = True


class Service(OperatorState):
    """A name that instances register under and routes point to."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="services")
    name = models.CharField(max_length=63, validators=[label])
    description = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["tenant__name", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="service_name_once_per_tenant")]

    def __str__(self) -> str:
        return self.name


class Zone(OperatorState):
    """A zone in which instances of a tenant run. Rows are made as instances name them."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="zones")
    name = models.CharField(max_length=63, validators=[RegexValidator(ZONE)])

    class Meta:
        ordering = ["tenant__name", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="zone_name_once_per_tenant")]

    def __str__(self) -> str:
        return self.name


class Instance(OperatorState):
    """One process of a service, as last seen. Written in batches from the change stream, never by hand."""

    class Health(models.TextChoices):
        HEALTHY = "healthy", "Healthy"
        DEGRADED = "degraded", "Degraded"
        UNHEALTHY = "unhealthy", "Unhealthy"
        UNKNOWN = "unknown", "Unknown"

    service = models.ForeignKey(Service, models.CASCADE, related_name="instances")
    instance_id = models.CharField(max_length=128, validators=[RegexValidator(INSTANCE_ID)])
    version = models.CharField(max_length=64, blank=True)
    endpoints = models.JSONField(default=dict)
    capabilities = models.JSONField(default=list)
    tags = models.JSONField(default=list)
    metadata = models.JSONField(default=dict)
    zone = models.CharField(max_length=63, blank=True)
    weight = models.PositiveIntegerField(default=100)
    live = models.BooleanField(default=True, help_text="It holds a lease.")
    held_since = models.DateTimeField(null=True, editable=False, help_text="Its lease lapsed in a crowd, and is held.")
    health = models.CharField(max_length=9, choices=Health.choices, default=Health.UNKNOWN)
    health_sentence = models.CharField(max_length=500, blank=True)
    registered_at = models.DateTimeField(default=timezone.now)
    gone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["service__name", "instance_id"]
        constraints = [models.UniqueConstraint(fields=["service", "instance_id"], name="instance_id_once_per_service")]
        indexes = [
            models.Index(fields=["live", "health"], name="instance_by_live_health"),
            models.Index(fields=["-registered_at"], name="instance_by_registration"),
        ]

    def __str__(self) -> str:
        return f"{self.service.name}/{self.instance_id}"
