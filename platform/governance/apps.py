"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class GovernanceConfig(AppConfig):
    """The charter: the consortium's rules as data."""

    name = "governance"
    default_auto_field = "django.db.models.BigAutoField"
