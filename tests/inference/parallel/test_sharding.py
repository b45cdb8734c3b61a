from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.fp8 import Fp8Blocks
from inference.models.names import expected_shapes
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.parallel.checkpoint import ShardedCheckpoint
from inference.parallel.ranks import Ranks
from inference.parallel.sharding import ExpertLayout, ShardPlan

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [24, 24]}  # parts begin inside blocks
CONFIG = ModelConfig.from_dict(TINY_V3)


@pytest.mark.parametrize("experts", ["whole", "cut"])
@pytest.mark.parametrize("fp8", [False, True])
def test_the_parts_together_are_the_whole_and_each_is_smaller(
    tmp_path: Path, experts: ExpertLayout, fp8: bool
) -> None:
    config = {**TINY_V3, "quantization_config": FP8} if fp8 else dict(TINY_V3)
    random_checkpoint_write(path=tmp_path, config=config, shards=2)
    blocks = Fp8Blocks(24, 24) if fp8 else None
    plans = [ShardPlan(CONFIG, Ranks(rank, 2), experts) for rank in range(2)]
    held = [0, 0]
    for name, shape in expected_shapes(CONFIG).items():
        with Checkpoint(tmp_path, fp8=blocks) as checkpoint:
            whole = checkpoint.read(name, torch.float32)
        parts = []
        for rank, plan in enumerate(plans):
            if plan.holds(name):
                with ShardedCheckpoint(tmp_path, plan, fp8=blocks) as checkpoint:
                    parts.append(checkpoint.read(name, torch.float32))
                held[rank] += parts[-1].numel()
        cut = plans[0].cut(name, shape)
        if cut is None:
            assert all(part.equal(whole) for part in parts)
        else:
            assert torch.cat(parts, dim=cut.dim).equal(whole)
    total = sum(torch.Size(shape).numel() for shape in expected_shapes(CONFIG).values())
    assert held[0] == held[1]
    kept = 2 * CONFIG.vocab_size * CONFIG.hidden_size  # embedding and head are whole everywhere
    assert held[0] - kept < 0.6 * (total - kept)


def test_an_expert_of_another_rank_is_not_read(tmp_path: Path) -> None:
    random_checkpoint_write(path=tmp_path, config=TINY_V3)
    name = "model.layers.1.mlp.experts.7.up_proj.weight"
    with (
        ShardedCheckpoint(tmp_path, ShardPlan(CONFIG, Ranks(0, 2))) as checkpoint,
        pytest.raises(ValueError, match=r"experts\.7\.up_proj.* belongs to another rank"),
    ):
        checkpoint.read(name, torch.float32)


@pytest.mark.parametrize(
    ("field", "experts"),
    [
        ("num_attention_heads", "cut"),
        ("intermediate_size", "whole"),
        ("moe_intermediate_size", "cut"),
        ("n_routed_experts", "whole"),
    ],
)
def test_what_can_not_be_shared_is_named(field: str, experts: ExpertLayout) -> None:
    config = ModelConfig.from_dict({**TINY_V3, field: 9, "n_group": 1, "topk_group": 1})
    with pytest.raises(ValueError, match=f"{field} = 9 can not be shared by 2 ranks"):
        ShardPlan(config, Ranks(0, 2), experts)
