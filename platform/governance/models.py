"""Rows of governance."""

from __future__ import annotations

from django.db import models

from tenants.fields import created_field, id_field, now


class Charter(models.Model):
    """A charter as adopted: immutable; the one in force has the newest ``effective_at`` that has passed."""

    id = id_field("chr")
    digest = models.CharField(max_length=64)
    document = models.JSONField()
    effective_at = models.DateTimeField(default=now)
    created_at = created_field()

    def __str__(self) -> str:
        return self.digest[:12]
