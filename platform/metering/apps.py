"""Django application."""

from __future__ import annotations

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Usage records: what the ledger's usage transfers are for."""

    name = "metering"
    default_auto_field = "django.db.models.BigAutoField"
