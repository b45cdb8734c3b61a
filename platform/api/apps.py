"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """The control API."""

    name = "api"
    default_auto_field = "django.db.models.BigAutoField"
