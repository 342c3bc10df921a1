"""Every mount of the control plane (port 8090)."""

from django.contrib import admin
from django.urls import include, path

handler400 = "registry.errors.bad_request"
handler403 = "registry.errors.permission_denied"
handler404 = "registry.errors.not_found"
handler500 = "registry.errors.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("registry.urls")),
    path("", include("health.urls")),
    path("", include("gateway.urls")),
    path("", include("anumate.faces.urls")),
]
