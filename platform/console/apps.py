"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """The web console; it has no rows of its own."""

    name = "console"
    default_auto_field = "django.db.models.BigAutoField"
