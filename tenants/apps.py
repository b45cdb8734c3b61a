"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """Organisations, members, projects, keys, audit."""

    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"
