from django.urls import path
from django.views.generic import RedirectView

from anumate.faces.views import live

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="live"), name="home"),
    path("live/", live, name="live"),
]
