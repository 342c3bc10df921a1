from django.urls import URLPattern, URLResolver, path, register_converter
from django.urls.converters import StringConverter
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from registry import held_views, schema, views  # noqa: F401  (drf-spectacular finds the extensions once they are imported)
from registry.names import INSTANCE_ID, LABEL, ZONE


class ServiceName(StringConverter):
    regex = LABEL.strip("^$")


class InstanceId(StringConverter):
    regex = INSTANCE_ID.strip("^$")


class ZoneName(StringConverter):
    regex = ZONE.strip("^$")


register_converter(ServiceName, "service")
register_converter(InstanceId, "instance")
register_converter(ZoneName, "zone")

router = SimpleRouter(trailing_slash=False)
router.register("v1/api-keys", views.ApiKeys, basename="api-key")
router.register("v1/tenants", views.Tenants, basename="tenant")

urlpatterns: list[URLPattern | URLResolver] = [
    *router.urls,
    path("v1/leases/held", held_views.Held.as_view(), name="held"),
    path("v1/leases/held/release", held_views.HeldRelease.as_view(), name="held-release"),
    path("v1/services/<service:name>/state", views.ServiceState.as_view(), name="service-state"),
    path("v1/services/<service:name>/state/undo", views.ServiceStateUndo.as_view(), name="service-state-undo"),
    path("v1/services/<service:name>/<instance:id>/state", views.InstanceState.as_view(), name="instance-state"),
    path(
        "v1/services/<service:name>/<instance:id>/state/undo",
        views.InstanceStateUndo.as_view(),
        name="instance-state-undo",
    ),
    path("v1/services/<service:name>/why", views.ServiceWhy.as_view(), name="service-why"),
    path("v1/services/<service:name>/history", views.ServiceHistory.as_view(), name="service-history"),
    path(
        "v1/services/<service:name>/<instance:id>/history",
        views.InstanceHistory.as_view(),
        name="instance-history",
    ),
    path("v1/zones", views.Zones.as_view(), name="zones"),
    path("v1/zones/<zone:name>/state", views.ZoneState.as_view(), name="zone-state"),
    path("v1/zones/<zone:name>/state/undo", views.ZoneStateUndo.as_view(), name="zone-state-undo"),
    path("v1/services/<service:name>/<instance:id>/why", views.InstanceWhy.as_view(), name="instance-why"),
    path("v1/prometheus/targets", views.ScrapeTargets.as_view(), name="scrape-targets"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
