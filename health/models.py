"""Checks that people configure, and what came of them."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from registry.names import INSTANCE_ID, WORD


class HealthCheck(models.Model):
    """How the instances of a service are asked whether they are well.

    Without any, an instance is checked as it asked for when it registered, else by a TCP check of its first endpoint.
    """

    class Type(models.TextChoices):
        HTTP = "http", "HTTP: GET a path; 2xx is healthy, 429 degraded, all else unhealthy"
        TCP = "tcp", "TCP: a connection can be opened"

    service = models.ForeignKey("registry.Service", models.CASCADE, related_name="health_checks")
    instance_id = models.CharField(
        max_length=128,
        blank=True,
        validators=[RegexValidator(INSTANCE_ID, "Use the id of an instance.")],
        help_text="Empty: every instance of the service.",
    )
    check_type = models.CharField(max_length=8, choices=Type.choices, default=Type.HTTP)
    endpoint = models.CharField(
        max_length=63,
        blank=True,
        validators=[RegexValidator(WORD, "Use the name of an endpoint.")],
        help_text="The endpoint's name. Empty: the first one that speaks HTTP, or the first of all.",
    )
    path = models.CharField(
        max_length=1000,
        default="/health",
        blank=True,
        validators=[RegexValidator(r"^/[!-~]*$", "Use a path that starts with / and has no spaces.")],
        help_text="What an HTTP check asks for.",
    )
    interval = models.FloatField(
        default=30.0,
        validators=[MinValueValidator(1.0), MaxValueValidator(86_400.0)],
        help_text="Seconds between checks.",
    )
    timeout = models.FloatField(
        default=10.0,
        validators=[MinValueValidator(0.1), MaxValueValidator(30.0)],
        help_text="Seconds until a check has failed; 30 at most.",
    )
    failure_threshold = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Failures in a row that make it unhealthy.",
    )
    success_threshold = models.PositiveSmallIntegerField(
        default=2,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Successes in a row that make it healthy again.",
    )
    warning_threshold = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Failures in a row that make it degraded. Empty: failures lead straight to unhealthy.",
    )
    enabled = models.BooleanField(
        default=True, help_text="Off: not made. A service whose checks are all off is not checked at all."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["service__name", "instance_id", "check_type"]
        constraints = [
            models.UniqueConstraint(
                fields=["service", "instance_id", "check_type", "endpoint", "path"], name="check_once"
            ),
            models.CheckConstraint(condition=models.Q(interval__gte=1.0), name="check_interval_from_1s"),
            models.CheckConstraint(condition=models.Q(timeout__gt=0.0), name="check_timeout_positive"),
        ]

    def __str__(self) -> str:
        whom = f"{self.service.name}/{self.instance_id}" if self.instance_id else self.service.name
        return f"{self.check_type} check of {whom}"


class Flip(models.Model):
    """An instance's health became another. The journal of what happened, and what alerts are made from."""

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="flips")
    service = models.CharField(max_length=63)
    instance_id = models.CharField(max_length=128)
    old = models.CharField(max_length=9)
    new = models.CharField(max_length=9)
    sentence = models.CharField(max_length=500, help_text="Why, in words.")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [
            models.Index(fields=["tenant", "-at"], name="flip_by_tenant"),
            models.Index(fields=["-at"], name="flip_by_time"),
            models.Index(fields=["tenant", "service", "instance_id", "-at"], name="flip_by_instance"),
        ]

    def __str__(self) -> str:
        return f"{self.service}/{self.instance_id}: {self.old} to {self.new}"


class ResultRollup(models.Model):
    """One minute of one instance's check results. Single results stay in Redis."""

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="result_rollups")
    service = models.CharField(max_length=63)
    instance_id = models.CharField(max_length=128)
    minute = models.DateTimeField()
    passed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    latency_sum = models.FloatField(default=0.0, help_text="Seconds.")
    latency_max = models.FloatField(default=0.0, help_text="Seconds.")

    class Meta:
        ordering = ["-minute", "service", "instance_id"]
        verbose_name = "result roll-up"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "service", "instance_id", "minute"], name="rollup_once_per_minute"
            )
        ]
        indexes = [models.Index(fields=["-minute"], name="rollup_by_minute")]

    def __str__(self) -> str:
        return f"{self.service}/{self.instance_id} at {self.minute:%H:%M}"
