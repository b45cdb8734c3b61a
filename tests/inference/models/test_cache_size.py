"""The cache holds what the formula says and nothing more: latent and rotary width, per token and layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.models.loader import load_model


@pytest.mark.parametrize(("weights", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 2)])
def test_bytes_per_token(tiny_dir: Path, weights: str, width: int) -> None:
    model = load_model(tiny_dir, weights=weights)  # type: ignore[arg-type]  # one of the formats
    cache = model.new_cache(pages=8, page_size=16)
    assert cache.untyped_storage().nbytes() == 8 * 16 * 3 * (16 + 8) * width
