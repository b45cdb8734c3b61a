"""Addresses: the API, and what supervisors and Prometheus ask."""

from __future__ import annotations

from django.urls import path, re_path

from api.failures import route_not_found
from api.health import healthz, metrics, readyz
from api.root import api

urlpatterns = [
    path("api/", api.urls),
    re_path(r"^api(?:/|$)", route_not_found),
    path("healthz", healthz),
    path("readyz", readyz),
    path("metrics", metrics),
]
