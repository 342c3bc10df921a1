"""What the gateway does with a request: routes, upstreams and policies. Compiled into the routing table."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from anumate_integration_service import breaker
from gateway.control import documents, rules
from gateway.control.document_rules import check_new_path
from gateway.proxy import policies
from registry.models.access import label

STANDARD: Final = breaker.BreakerPolicy()
"""Where the defaults of breaker policies come from."""


def document(what: str) -> models.JSONField[Any, Any]:
    """A column for one of the documents of `gateway.proxy.policies`."""
    return models.JSONField(default=dict, blank=True, help_text=what)


class Documented(models.Model):
    """A row some of whose columns are documents: `documents` names each with its kind."""

    documents: ClassVar[dict[str, type[policies.Document]]] = {}

    class Meta:
        abstract = True

    def clean(self) -> None:
        """Raises ValidationError at each document that is not what it should be."""
        super().clean()
        errors = {}
        for name, kind in self.documents.items():
            try:
                setattr(self, name, documents.short(documents.read(kind, getattr(self, name))))
            except ValidationError as error:
                errors[name] = error.messages
        if errors:
            raise ValidationError(errors)


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
    window = models.CharField(
        max_length=5,
        choices=[("time", "The last seconds"), ("count", "The last calls")],
        default=STANDARD.window,
        help_text="What is judged.",
    )
    window_seconds = models.FloatField(
        default=STANDARD.window_seconds, validators=[MinValueValidator(1.0), MaxValueValidator(3600.0)]
    )
    window_calls = models.PositiveIntegerField(
        default=STANDARD.window_calls, validators=[MinValueValidator(1), MaxValueValidator(10_000)]
    )
    minimum_calls = models.PositiveIntegerField(default=STANDARD.minimum_calls, validators=[MinValueValidator(1)])
    failure_rate = models.FloatField(
        default=STANDARD.failure_rate,
        validators=[MinValueValidator(0.01), MaxValueValidator(1.0)],
        help_text="Part of the calls, 0.5 is half.",
    )
    consecutive_failures = models.PositiveIntegerField(
        default=STANDARD.consecutive_failures, help_text="0: however many there are in a row."
    )
    slow_call_seconds = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0.001)], help_text="Empty: no call is slow."
    )
    slow_call_rate = models.FloatField(
        default=STANDARD.slow_call_rate, validators=[MinValueValidator(0.01), MaxValueValidator(1.0)]
    )
    open_seconds = models.FloatField(
        default=STANDARD.open_seconds, validators=[MinValueValidator(0.1), MaxValueValidator(86_400.0)]
    )
    half_open_calls = models.PositiveIntegerField(
        default=STANDARD.half_open_calls, validators=[MinValueValidator(1), MaxValueValidator(1000)]
    )
    half_open_seconds = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1), MaxValueValidator(86_400.0)],
        help_text="Trials still out after so long have failed. Empty: they may take as long as they like.",
    )
    backoff = models.FloatField(
        default=STANDARD.backoff,
        validators=[MinValueValidator(1.0), MaxValueValidator(10.0)],
        help_text="After failed trials it stays open so many times longer.",
    )
    max_open_seconds = models.FloatField(
        default=STANDARD.max_open_seconds,
        validators=[MinValueValidator(0.1), MaxValueValidator(86_400.0)],
        help_text="But never longer than this.",
    )
    jitter = models.FloatField(
        default=STANDARD.jitter,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="Each wait is longer or shorter by up to this part.",
    )
    metrics_only = models.BooleanField(
        default=STANDARD.metrics_only, help_text="Count and tell, but refuse nothing: to try a policy out."
    )
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


class Upstream(Documented):
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
    sticky = document("Requests of one caller go to one instance.")
    slow_start_seconds = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(3600.0)],
        help_text="A new instance gets its full share only after so long. 0: at once.",
    )
    panic_threshold = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="When a smaller part of the instances is healthy, all of them get requests. 0: never.",
    )
    zone = models.CharField(
        max_length=6,
        choices=[("off", "Not asked"), ("prefer", "The gateway's own first"), ("strict", "The gateway's own only")],
        default="off",
    )
    outlier = document("An instance that keeps failing is left out for a while.")
    concurrent = models.PositiveIntegerField(
        default=0,
        validators=[MaxValueValidator(1_000_000)],
        help_text="Requests at once in each worker of the gateway; they do not count together. 0: no limit.",
    )
    addresses = models.JSONField(
        default=list, blank=True, help_text="Where it is reached, in place of what the registry knows."
    )
    tls = document("How instances with an https endpoint are spoken to.")
    tls_key = models.TextField(default="", blank=True, editable=False)
    """The private key to the TLS certificate, sealed."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    documents: ClassVar = {"sticky": policies.Sticky, "outlier": policies.Outlier, "tls": policies.Tls}

    class Meta:
        ordering = ["service__name"]

    def __str__(self) -> str:
        return self.service.name


class Route(Documented):
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
    rewrite = document("What the service sees in place of host and path.")
    redirect = document("The client is sent elsewhere; no service is needed.")
    request_headers = document("Changes of the request's header fields.")
    response_headers = document("Changes of the answer's header fields.")
    mirror = document("A copy of requests for another service.")
    cors = document("Which pages of other origins may call the route.")
    timeouts = document("Deadlines besides the one above.")
    retry = document("When a request is tried again.")
    hedge = document("A second try while the first still runs.")
    limits = document("What the route takes at most.")
    auth = document("How callers prove who they are.")
    access_log = document("How many requests leave a line.")
    websockets = document("Whether and how WebSockets are passed on.")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    audited_parts = ("targets", "further_limits")
    documents: ClassVar = {
        "rewrite": policies.Rewrite,
        "redirect": policies.Redirect,
        "request_headers": policies.HeaderEdits,
        "response_headers": policies.HeaderEdits,
        "mirror": policies.Mirror,
        "cors": policies.Cors,
        "timeouts": policies.Timeouts,
        "retry": policies.Retry,
        "hedge": policies.Hedge,
        "limits": policies.Limits,
        "auth": policies.Auth,
        "access_log": policies.AccessLog,
        "websockets": policies.WebSockets,
    }

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
        for document in (self.rewrite, self.redirect):
            check_new_path(self.path, self.path_type, document)


class RouteLimit(models.Model):
    """A further rate-limit policy of a route: a request needs a token of each."""

    route = models.ForeignKey(Route, models.CASCADE, related_name="further_limits")
    policy = models.ForeignKey(RateLimitPolicy, models.PROTECT, related_name="further_routes")

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["route", "policy"], name="further_limit_once_per_route")]

    def __str__(self) -> str:
        return f"{self.policy} on {self.route}"


class RouteTarget(models.Model):
    """A share of a route's requests, or those that carry its header or cookie."""

    route = models.ForeignKey(Route, models.CASCADE, related_name="targets")
    service = models.ForeignKey("registry.Service", models.PROTECT, related_name="route_targets")
    weight = models.PositiveIntegerField(default=100, validators=[MaxValueValidator(1_000_000)])
    version = models.CharField(
        max_length=100, blank=True, help_text="Only instances of these versions, like >=2,<3 (PEP 440)."
    )
    tags = models.JSONField(default=list, blank=True, help_text="Only instances that have all of these tags.")
    header = models.JSONField(
        null=True, blank=True, default=None, help_text="Requests with this header come here, whatever the weights say."
    )
    cookie = models.JSONField(
        null=True, blank=True, default=None, help_text="Requests with this cookie come here, whatever the weights say."
    )

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.route.name} to {self.service.name}"


class JwtIssuer(models.Model):
    """Whose JSON Web Tokens the tenant's routes believe, where they take tokens."""

    tenant = models.ForeignKey("registry.Tenant", models.CASCADE, related_name="jwt_issuers")
    name = models.CharField(max_length=63, validators=[label])
    issuer = models.CharField(max_length=500, help_text="The claim iss, to the letter.")
    audiences = models.JSONField(default=list, help_text="A token is for at least one of them (aud).")
    algorithms = models.JSONField(default=list, help_text="Those that count, whatever a token says of itself.")
    jwks_url = models.CharField(
        max_length=1000,
        blank=True,
        help_text="Where its public keys are; fetched by each worker, every 5 minutes.",
    )
    keys = models.TextField(blank=True, max_length=100_000, help_text="Or the keys themselves: JWKS or PEM.")
    sealed_secret = models.TextField(default="", blank=True, editable=False)
    """Or the secret that HS256, HS384 and HS512 are signed with, sealed."""
    leeway = models.PositiveSmallIntegerField(
        default=60, validators=[MaxValueValidator(300)], help_text="Seconds that its clock and ours may differ."
    )
    required_claims = models.JSONField(default=list, blank=True, help_text="Claims that a token must have, besides.")
    subject_claim = models.CharField(max_length=100, default="sub", help_text="The claim that says who it is.")
    scope_claim = models.CharField(max_length=100, blank=True, help_text="Empty: scope, else scp.")
    grants_invoke = models.BooleanField(
        default=True, help_text="A token may call the gateway although it does not say gateway:invoke."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "JWT issuer"
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="jwt_issuer_name_per_tenant")]

    def __str__(self) -> str:
        return self.name
