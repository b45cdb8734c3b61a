"""Field shapes shared by every model: sortable text ids, and times from the one clock."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from django.db import models

from core.clock import clock
from core.ids import new_id

ID_CHARS = 32


def now() -> datetime:
    """The clock's time; a module function because migrations name defaults by import path."""
    return clock.now()


def id_field(prefix: str) -> models.CharField[str, str]:
    """Primary key such as ``ten_01jd…``."""
    return models.CharField(
        primary_key=True, max_length=ID_CHARS, default=partial(new_id, prefix), editable=False
    )


def created_field() -> models.DateTimeField[datetime, datetime]:
    """When the row was made."""
    return models.DateTimeField(default=now, editable=False)
