from django.urls import URLPattern, URLResolver, path, re_path
from rest_framework.routers import SimpleRouter

from gateway import views

router = SimpleRouter(trailing_slash=False)
router.register("v1/routes", views.Routes, basename="route")
router.register("v1/upstreams", views.Upstreams, basename="upstream")
router.register("v1/rate-limit-policies", views.RateLimitPolicies, basename="rate-limit-policy")
router.register("v1/breaker-policies", views.BreakerPolicies, basename="breaker-policy")
router.register("v1/jwt-issuers", views.JwtIssuers, basename="jwt-issuer")

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/routes/explain", views.Explain.as_view(), name="explain"),
    *router.urls,
    path("v1/circuit-breakers", views.CircuitBreakers.as_view(), name="breakers"),
    path("v1/circuit-breakers/<slug:name>", views.CircuitBreaker.as_view(), name="breaker"),
    re_path(
        r"^v1/circuit-breakers/(?P<name>[-a-z0-9]+)/(?P<action>open|close|reset)$",
        views.ForceBreaker.as_view(),
        name="force-breaker",
    ),
    path("v1/metrics", views.MetricsView.as_view(), name="metrics"),
]
