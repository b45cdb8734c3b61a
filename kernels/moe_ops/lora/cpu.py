"""Plain torch: as the definitions, with fp32 activations."""

from __future__ import annotations

import torch

from moe_ops.grouped_mlp.packing import PackedExperts
from moe_ops.lora import reference
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames

lora_add_ = reference.lora_add_


def lora_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    batch: LoraBatch,
    names: ExpertNames,
) -> torch.Tensor:
    """As the definition, but activations are not rounded."""
    return reference.lora_mlp_(
        out_TD,
        x_TD,
        experts=experts,
        weights_TK=weights_TK,
        experts_TK=experts_TK,
        batch=batch,
        names=names,
        rounds=False,
    )
