"""Every mount of the control plane (port 8090)."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("registry.urls")),
    path("", include("health.urls")),
    path("", include("gateway.urls")),
    path("", include("anumate.faces.urls")),
]
