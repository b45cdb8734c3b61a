"""Plain torch on an accelerator: as the definitions, with all matrices kept on the device. Unmeasured.

Experts that an adapter changes are computed one after the other, and what was chosen is read back for it.
"""

from __future__ import annotations

from functools import partial

import torch

from moe_ops.grouped_mlp.dense import dense_experts
from moe_ops.grouped_mlp.packing import PackedExperts
from moe_ops.linear.cpu import linear
from moe_ops.lora import reference
from moe_ops.lora.bank import LowRank
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames


def _product(x_NI: torch.Tensor, change: LowRank) -> torch.Tensor:
    return linear(linear(x_NI, change.a), change.b)


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
    """As the reference; activations are not rounded."""
    dense = dense_experts(experts, like=x_TD)
    return reference.lora_mlp_(
        out_TD,
        x_TD,
        experts=experts,
        weights_TK=weights_TK,
        experts_TK=experts_TK,
        batch=batch,
        names=names,
        rounds=False,
        matrices=lambda _, expert: (dense.gate_up_EJD[expert], dense.down_EDI[expert]),
        product=_product,
    )


lora_add_ = partial(reference.lora_add_, product=_product)
