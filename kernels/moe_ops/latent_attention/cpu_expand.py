"""Plain torch for many new tokens: torch's fused attention on a CPU, plain products elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.latent_attention.pieces import attend_plain, expand_

_PIECE = 1024  # context positions expanded at a time


def latent_expand_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    pages_P: torch.Tensor,
    start: int,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """As the reference, with float activations as they are."""
    attend = _attend if q_THQ.device.type == "cpu" else attend_plain
    expand_(
        out_THV,
        q_THQ,
        cache_PZC,
        pages_P,
        start,
        heads=heads,
        scale=scale,
        attend=attend,
        piece=_PIECE,
    )


def _attend(
    q_THQ: torch.Tensor, both_SHU: torch.Tensor, rotary_SR: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    nope = q_THQ.shape[2] - rotary_SR.shape[1]
    value = both_SHU.shape[2] - nope
    rotary_SHR = rotary_SR.unsqueeze(1).expand(-1, both_SHU.shape[1], -1)
    key_SHQ = torch.cat([both_SHU[..., :nope], rotary_SHR], dim=-1)
    width = max(q_THQ.shape[2], value)  # torch's kernel wants one width
    parts = (
        fn.pad(part, (0, width - part.shape[2])).transpose(0, 1).unsqueeze(0)
        for part in (q_THQ, key_SHQ, both_SHU[..., nope:])
    )
    out_1HTQ, total_1HT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *parts, 0.0, causal, scale=scale
    )
    return out_1HTQ[0].transpose(0, 1)[..., :value], total_1HT[0].t()
