"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class LedgerConfig(AppConfig):
    """Accounts and balanced transfers."""

    name = "ledger"
    default_auto_field = "django.db.models.BigAutoField"
