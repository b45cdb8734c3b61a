"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class ReleasesConfig(AppConfig):
    """Model releases and the proof that a worker holds one."""

    name = "releases"
    default_auto_field = "django.db.models.BigAutoField"
