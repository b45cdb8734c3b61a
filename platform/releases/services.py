"""Registering a release from its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from inference.messages import manifest_digest, release_manifest
from releases.models import Release, ReleaseState
from tenants.scope import nested_transaction


@dataclass(frozen=True)
class _Shape:
    max_model_len: int
    vocab_size: int


def release_register(*, slug: str, model_dir: Path) -> Release:
    """The release of the files in ``model_dir``, available from now on; another of that slug is retired.

    Registering the same files again only remembers where they lie. System scope. Raises ValueError when
    the folder holds no release, OSError when it cannot be read.
    """
    model_dir = model_dir.resolve()
    manifest = release_manifest(model_dir)
    shape = _shape_load(model_dir / "config.json")
    digest = manifest_digest(manifest)
    with nested_transaction():
        Release.objects.filter(slug=slug, state=ReleaseState.AVAILABLE).exclude(digest=digest).update(
            state=ReleaseState.RETIRED
        )
        release, _created = Release.objects.get_or_create(
            slug=slug,
            digest=digest,
            defaults={
                "manifest": manifest,
                "artifact_dir": str(model_dir),
                "max_model_len": shape.max_model_len,
                "vocab_size": shape.vocab_size,
            },
        )
        if release.artifact_dir != str(model_dir) or release.state != ReleaseState.AVAILABLE:
            release.artifact_dir, release.state = str(model_dir), ReleaseState.AVAILABLE
            release.save(update_fields=["artifact_dir", "state"])
    return release


def _shape_load(config_path: Path) -> _Shape:
    config = json.loads(config_path.read_bytes())
    try:
        shape = _Shape(int(config["max_position_embeddings"]), int(config["vocab_size"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"config.json has no usable field {error}") from error
    if shape.max_model_len < 1 or shape.vocab_size < 1:
        raise ValueError("config.json: max_position_embeddings and vocab_size must be positive")
    return shape
