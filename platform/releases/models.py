"""Rows of the model registry."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from tenants.fields import created_field, id_field


class ReleaseState(models.TextChoices):
    """``available`` is served; ``retired`` no longer."""

    AVAILABLE = "available"
    RETIRED = "retired"


class Release(models.Model):
    """One exact version of a model: ``manifest`` is ``{relative path: sha256}`` and ``digest`` is over it.

    ``artifact_dir`` is where the control plane can read the files, to challenge workers about them.
    """

    id = id_field("rel")
    slug = models.CharField(max_length=63)
    digest = models.CharField(max_length=64)
    manifest = models.JSONField()
    artifact_dir = models.CharField(max_length=500)
    max_model_len = models.PositiveIntegerField()
    vocab_size = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=ReleaseState.choices, default=ReleaseState.AVAILABLE)
    created_at = created_field()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["slug", "digest"], name="release_digest_once_per_slug"),
            models.UniqueConstraint(
                fields=["slug"], condition=Q(state="available"), name="release_one_available_per_slug"
            ),
            models.CheckConstraint(condition=Q(state__in=ReleaseState.values), name="release_state_known"),
        ]

    def __str__(self) -> str:
        return self.slug
