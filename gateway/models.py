"""What the gateway does with a request: routes, upstreams and policies. Compiled into the routing table."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from gateway.control import rules
from registry.models.access import label


class RateLimitPolicy(models.Model):
    """A token bucket: `rate` tokens a second, at most `burst` at once."""

    class By(models.TextChoices):
        KEY = "key", "API key"
        ADDRESS = "address", "Client address"
        TENANT = "tenant", "Tenant"
        ROUTE = "route", "Route"

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="rate_limit_policies")
    name = models.CharField(max_length=63, validators=[label])
    rate = models.FloatField(
        validators=[MinValueValidator(0.001), MaxValueValidator(10_000_000)], help_text="Tokens a second."
    )
    burst = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(10_000_000)], help_text="Tokens that may be taken at once."
    )
    by = models.CharField(max_length=100, default=By.KEY, help_text="key, address, tenant, route or header:<name>.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["tenant__name", "name"]
        verbose_name = "rate-limit policy"
        verbose_name_plural = "rate-limit policies"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="rate_limit_name_once_per_tenant"),
            models.CheckConstraint(condition=models.Q(rate__gt=0), name="rate_limit_rate_positive"),
            models.CheckConstraint(condition=models.Q(burst__gte=1), name="rate_limit_burst_positive"),
        ]

    def __str__(self) -> str:
        return self.name


class BreakerPolicy(models.Model):
    """When a service's circuit breaker opens, and how it closes again (terms as in resilience4j)."""

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="breaker_policies")
    name = models.CharField(max_length=63, validators=[label])
    window_seconds = models.FloatField(default=10.0, validators=[MinValueValidator(1.0), MaxValueValidator(3600.0)])
    minimum_calls = models.PositiveIntegerField(default=20, validators=[MinValueValidator(1)])
    failure_rate = models.FloatField(
        default=0.5,
        validators=[MinValueValidator(0.01), MaxValueValidator(1.0)],
        help_text="Part of the calls, 0.5 is half.",
    )
    consecutive_failures = models.PositiveIntegerField(default=5, validators=[MinValueValidator(1)])
    slow_call_seconds = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.001)], help_text="Empty: no call is slow."
    )
    slow_call_rate = models.FloatField(default=1.0, validators=[MinValueValidator(0.01), MaxValueValidator(1.0)])
    open_seconds = models.FloatField(default=60.0, validators=[MinValueValidator(0.1), MaxValueValidator(86_400.0)])
    half_open_calls = models.PositiveIntegerField(default=3, validators=[MinValueValidator(1), MaxValueValidator(1000)])
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["tenant__name", "name"]
        verbose_name_plural = "breaker policies"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="breaker_name_once_per_tenant"),
            models.CheckConstraint(
                condition=models.Q(failure_rate__gt=0, failure_rate__lte=1), name="breaker_failure_rate_is_a_part"
            ),
            models.CheckConstraint(
                condition=models.Q(slow_call_rate__gt=0, slow_call_rate__lte=1), name="breaker_slow_rate_is_a_part"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Upstream(models.Model):
    """How requests are spread over a service's instances, and what guards them. Without one: the defaults."""

    class Strategy(models.TextChoices):
        ROUND_ROBIN = "round_robin", "Round robin"
        WEIGHTED = "weighted", "Weighted (smooth)"
        LEAST_CONNECTIONS = "least_connections", "Least connections"
        P2C = "p2c", "Power of two choices"
        HEALTH_AWARE = "health_aware", "Health-aware (latency and errors)"
        RANDOM = "random", "Random"
        HASH = "hash", "Consistent hash"

    service = models.OneToOneField("registry.Service", models.CASCADE, related_name="upstream")
    load_balancing = models.CharField(max_length=17, choices=Strategy.choices, default=Strategy.ROUND_ROBIN)
    breaker_policy = models.ForeignKey(
        BreakerPolicy,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="upstreams",
        help_text="Empty: the defaults of the environment.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["service__name"]

    def __str__(self) -> str:
        return self.service.name


class Route(models.Model):
    """Which requests go to which services."""

    class PathType(models.TextChoices):
        EXACT = "exact", "Exact"
        PREFIX = "prefix", "Prefix, by segment"
        REGEX = "regex", "Regular expression"

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="routes")
    name = models.CharField(max_length=63, validators=[label])
    hosts = models.JSONField(
        default=list, blank=True, help_text="Host names, *.example.com allowed. Empty: every host of the tenant."
    )
    path = models.CharField(max_length=1000, default="/")
    path_type = models.CharField(max_length=6, choices=PathType.choices, default=PathType.PREFIX)
    methods = models.JSONField(default=list, blank=True, help_text="Empty: every method.")
    headers = models.JSONField(default=list, blank=True, help_text='Each {"name": …, "value": …}; all must match.')
    query = models.JSONField(default=list, blank=True, help_text='Each {"name": …, "value": …}; all must match.')
    priority = models.IntegerField(
        default=0,
        validators=[MinValueValidator(-1_000_000), MaxValueValidator(1_000_000)],
        help_text="Higher comes first; equals follow the Gateway API's rules.",
    )
    strip_prefix = models.BooleanField(default=True, help_text="The service sees the path without the route's prefix.")
    auth_required = models.BooleanField(default=True, help_text="A key with scope gateway:invoke is needed.")
    scopes = models.JSONField(default=list, blank=True, help_text="Further scopes the key needs.")
    rate_limit_policy = models.ForeignKey(RateLimitPolicy, models.PROTECT, null=True, blank=True, related_name="routes")
    timeout_seconds = models.FloatField(
        default=30.0,
        validators=[MinValueValidator(0.05), MaxValueValidator(86_400.0)],
        help_text="Until the answer's headers must have arrived.",
    )
    retries = models.PositiveSmallIntegerField(
        default=1, validators=[MaxValueValidator(10)], help_text="Further tries on other instances, only where safe."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    audited_parts = ("targets",)

    class Meta:
        ordering = ["tenant__name", "-priority", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="route_name_once_per_tenant")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raises ValidationError at `path`, which is judged by its type."""
        super().clean()
        try:
            rules.check_path(self.path, self.path_type)
        except ValidationError as error:
            raise ValidationError({"path": error}) from None


class RouteTarget(models.Model):
    """A share of a route's requests."""

    route = models.ForeignKey(Route, models.CASCADE, related_name="targets")
    service = models.ForeignKey("registry.Service", models.PROTECT, related_name="route_targets")
    weight = models.PositiveIntegerField(default=100, validators=[MaxValueValidator(1_000_000)])
    version = models.CharField(
        max_length=100, blank=True, help_text="Only instances of these versions, like >=2,<3 (PEP 440)."
    )

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["route", "service", "version"], name="target_once_per_route")]

    def __str__(self) -> str:
        return f"{self.route.name} to {self.service.name}"
