from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from gateway import views

router = SimpleRouter(trailing_slash=False)
router.register("v1/routes", views.Routes, basename="route")
router.register("v1/upstreams", views.Upstreams, basename="upstream")
router.register("v1/rate-limit-policies", views.RateLimitPolicies, basename="rate-limit-policy")
router.register("v1/breaker-policies", views.BreakerPolicies, basename="breaker-policy")

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/routes/explain", views.Explain.as_view(), name="explain"),
    *router.urls,
]
