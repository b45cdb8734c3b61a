"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class PartnersConfig(AppConfig):
    """Partner clouds, pools, workers, offers."""

    name = "partners"
    default_auto_field = "django.db.models.BigAutoField"
