"""The cache holds what the formula says and nothing more: latent and rotary width, per token and layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

PUBLISHED = {"DeepSeek-V3": (61, 70_272), "DeepSeek-V2": (60, 69_120), "DeepSeek-V2-Lite": (27, 31_104)}


@pytest.mark.parametrize(("weights", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 2)])
def test_bytes_per_token(tiny_dir: Path, weights: str, width: int) -> None:
    model = load_model(tiny_dir, weights=weights)  # type: ignore[arg-type]  # one of the formats
    cache = model.new_cache(pages=8, page_size=16)
    assert cache.untyped_storage().nbytes() == 8 * 16 * 3 * (16 + 8) * width


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_take_what_their_papers_say(name: str, tmp_path: Path) -> None:
    """Layers × (512 + 64) × 2 bytes of bf16, on a model with these layers and latents and little else."""
    layers, size = PUBLISHED[name]
    assert layers * (512 + 64) * 2 == size
    shape = {"num_hidden_layers": layers, "first_k_dense_replace": layers, "hidden_size": 32}
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 1}
    random_checkpoint_write(path=tmp_path, config={**TINY_V3, **shape, **latent})
    cache = load_model(tmp_path, weights="bfloat16").new_cache(pages=3, page_size=8)
    assert cache.untyped_storage().nbytes() == 3 * 8 * size
