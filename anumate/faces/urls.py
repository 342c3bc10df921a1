from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView

from anumate.faces.configuration.views import Configuration
from anumate.faces.views import live

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="live"), name="home"),
    path("live/", live, name="live"),
    path("v1/config", Configuration.as_view(), name="config"),
    # Browsers ask for it on pages that name no icon of their own.
    path("favicon.ico", RedirectView.as_view(url=static("anumate/mark.svg"))),
]
