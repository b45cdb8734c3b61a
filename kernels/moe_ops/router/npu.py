"""Ascend's own choice of experts. Unmeasured: never run on an NPU."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.accelerator.npu import operations
from moe_ops.router import reference
from moe_ops.router.reference import RouterSpec


def route(
    x_TD: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    spec: RouterSpec,
    allowed_TE: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference, which also computes what Ascend's operation can not: `allowed_TE`.

    Only the choice is taken from the operation: whether it normalises the weights depends on its version.
    """
    if allowed_TE is not None:
        return reference.route(x_TD, weight_ED, bias_E, spec, allowed_TE)
    logits_TE = fn.linear(x_TD.float(), weight_ED.float())
    _, chosen_TK, _ = operations().npu_moe_gating_top_k(
        logits_TE,
        spec.top_k,
        bias=bias_E,
        k_group=spec.groups_kept,
        group_count=spec.groups,
        group_select_mode=0 if bias_E is None else 1,  # best expert, or sum of the best two
        renorm=0,  # scores before choice
        norm_type=1 if spec.scoring == "sigmoid" else 0,
        out_flag=False,
        routed_scaling_factor=1.0,
        eps=1e-20,
    )
    experts_TK = chosen_TK.long()
    scores_TE = logits_TE.sigmoid() if spec.scoring == "sigmoid" else logits_TE.softmax(-1)
    weights_TK = scores_TE.gather(1, experts_TK)
    if spec.normalize:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
    return weights_TK * spec.scale, experts_TK
