"""Reads of the model registry, in the caller's scope."""

from __future__ import annotations

from collections.abc import Sequence

from releases.models import Release, ReleaseState


def release_available(slug: str) -> Release | None:
    """The version of ``slug`` that is served now."""
    return Release.objects.filter(slug=slug, state=ReleaseState.AVAILABLE).first()


def releases_available() -> Sequence[Release]:
    """All that is served now, by slug."""
    return list(Release.objects.filter(state=ReleaseState.AVAILABLE).order_by("slug"))


def release_list() -> Sequence[Release]:
    """Every release ever registered, newest first."""
    return list(Release.objects.order_by("-id"))
