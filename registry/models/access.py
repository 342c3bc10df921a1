"""Tenants, their host names, their members and their API keys."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from registry.names import LABEL

label = RegexValidator(LABEL, "Use 1 to 63 lower-case letters, digits and inner hyphens (a DNS label).")
at_least_one = MinValueValidator(1)


def check_network(text: str) -> None:
    """Raises ValidationError on what is no network."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValidationError(f"{text} is no network. Write it like 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32.") from None


class Tenant(models.Model):
    """A team with things of its own. Nothing of one tenant is found by another."""

    name = models.CharField(
        max_length=63,
        unique=True,
        validators=[label],
        help_text="Part of addresses and keys; it cannot be changed later.",
    )
    title = models.CharField(max_length=200, blank=True, help_text="What people call it.")
    active = models.BooleanField(default=True, help_text="Off: its keys stop working within a second.")
    max_services = models.PositiveIntegerField(
        null=True, blank=True, validators=[at_least_one], help_text="Services with a live instance. Empty: no limit."
    )
    max_instances = models.PositiveIntegerField(
        null=True, blank=True, validators=[at_least_one], help_text="Live instances. Empty: no limit."
    )
    max_requests_per_second = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[at_least_one],
        help_text="Discoveries and new registrations; each web worker has its share. Empty: no limit.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    audited_parts = ("hosts",)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.title or self.name


class TenantHost(models.Model):
    """A host name that belongs to one tenant: `api.example.com`, or `*.example.com` for every name below."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="hosts")
    host = models.CharField(
        max_length=253,
        unique=True,
        validators=[
            RegexValidator(
                r"^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
                "Use a host name, or *. and a host name.",
            )
        ],
    )

    class Meta:
        ordering = ["host"]

    def __str__(self) -> str:
        return self.host


class Member(models.Model):
    """What a person may do in a tenant."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner: everything, members and keys included"
        OPERATOR = "operator", "Operator: services, routes, policies, checks"
        VIEWER = "viewer", "Viewer: look only"

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["tenant__name", "user__username"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="member_once_per_tenant"),
            models.CheckConstraint(
                condition=models.Q(role__in=["owner", "operator", "viewer"]), name="member_role_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant} ({self.role})"


class ApiKey(models.Model):
    """A machine's way in. Only a peppered hash of the secret is kept."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=list)
    routes = models.JSONField(
        default=list, blank=True, help_text="Names of the gateway's routes it is good for. Empty: all."
    )
    networks = models.JSONField(
        default=list, blank=True, help_text="Where it may come from, like 10.0.0.0/8. Empty: anywhere."
    )
    rate_limit_policy = models.CharField(
        max_length=63,
        blank=True,
        default="",
        validators=[label],
        help_text="A rate-limit policy of the tenant, in place of the routes' own. Empty: none.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name = "API key"
        indexes = [models.Index(fields=["tenant", "-created_at"], name="apikey_by_tenant")]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"
