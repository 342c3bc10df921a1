from django.urls import URLPattern, URLResolver, path

from health import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/health/status", views.HealthStatus.as_view(), name="health-status"),
    path("v1/health/configure", views.ConfigureCheck.as_view(), name="health-configure"),
    path("v1/health/incidents", views.Incidents.as_view(), name="health-incidents"),
]
