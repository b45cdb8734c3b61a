"""All addresses of the control plane."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("api.urls")),
    path("", include("console.urls")),
]
handler404 = "console.errors.not_found"
