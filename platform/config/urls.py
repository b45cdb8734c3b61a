"""All addresses of the control plane."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import include, path

urlpatterns = [
    *([path("", include("api.urls"))] if find_spec("api.urls") else []),
    *([path("", include("console.urls"))] if find_spec("console.urls") else []),
]
