"""Rotary positions equal transformers' to the bit, and the published softmax scales come out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3RotaryEmbedding,
    apply_rotary_pos_emb_interleave,
    yarn_apply_mscale,
)

from inference.layers.rope import RopeTable, apply_rope, attention_factor, inverse_frequencies, softmax_scale
from inference.models.config import ModelConfig

YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
CASES = [
    YARN,
    {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    {**YARN, "mscale": 0.5},
    {**YARN, "factor": 4.0, "original_max_position_embeddings": 1024},
    {**YARN, "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 4.0},
    {key: value for key, value in YARN.items() if not key.startswith("mscale")},
    {**YARN, "attention_factor": 1.25},
    {**YARN, "truncate": False},
    {"rope_type": "default"},
]


def both(scaling: dict[str, Any], *, rope_dim: int = 64) -> tuple[ModelConfig, DeepseekV3Config]:
    theirs = DeepseekV3Config(
        qk_rope_head_dim=rope_dim,
        max_position_embeddings=int(
            scaling.get("factor", 1) * scaling.get("original_max_position_embeddings", 512)
        ),
        rope_parameters={"rope_theta": 10000.0, **scaling},
    )
    return ModelConfig.from_dict(theirs.to_dict()), theirs


@pytest.mark.parametrize("scaling", CASES)
@pytest.mark.parametrize("rope_dim", [16, 64])
def test_frequencies_scale_and_rotation_equal_transformers(scaling: dict[str, Any], rope_dim: int) -> None:
    config, theirs = both(scaling, rope_dim=rope_dim)
    rotary = DeepseekV3RotaryEmbedding(theirs)
    assert torch.equal(inverse_frequencies(config), rotary.inv_freq)
    assert attention_factor(config.rope_scaling) == rotary.attention_scaling
    expected_scale = yarn_apply_mscale(theirs.rope_parameters, theirs.qk_head_dim**-0.5)
    assert softmax_scale(config) == pytest.approx(expected_scale, rel=1e-12)

    position_T = torch.tensor([0, 1, 5, 63, 64, 300, 511])
    table = RopeTable.build(config, positions=512)
    cos, sin = rotary(torch.zeros(1), position_T[None])
    q, k = torch.randn(1, 3, 7, rope_dim), torch.randn(1, 1, 7, rope_dim)
    expected_q, expected_k = apply_rotary_pos_emb_interleave(q, k, cos, sin)
    assert torch.equal(apply_rope(q, *table.at(position_T)), expected_q)
    assert torch.equal(apply_rope(k, *table.at(position_T)), expected_k)


@pytest.mark.parametrize(("mscale", "scale"), [(0.707, 0.114721), (1.0, 0.135234)])
def test_the_published_softmax_scales(mscale: float, scale: float) -> None:
    config, _ = both({**YARN, "mscale": mscale, "mscale_all_dim": mscale})
    assert softmax_scale(config) == pytest.approx(scale, abs=5e-7)


def test_products_depend_on_distance_alone() -> None:
    config, _ = both(YARN)
    table = RopeTable.build(config, positions=400)
    q, k = torch.randn(64), torch.randn(64)

    def product(at_q: int, at_k: int) -> float:
        rotated = [
            apply_rope(vector[None], *table.at(torch.tensor([place])))[0]
            for vector, place in ((q, at_q), (k, at_k))
        ]
        return float(rotated[0] @ rotated[1])

    assert product(110, 100) == pytest.approx(product(310, 300), abs=1e-3)
    assert abs(product(110, 100) - product(150, 100)) > 1e-2


def test_low_precision_stays_low_precision() -> None:
    config, _ = both(YARN)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    assert apply_rope(x, *RopeTable.build(config, positions=3).at(torch.arange(3))).dtype == torch.bfloat16
