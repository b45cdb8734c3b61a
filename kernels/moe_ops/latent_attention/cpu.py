"""One gather of whole pages, then torch's fused attention with heads laid out so that keys are read once."""

from __future__ import annotations

import torch
import torch.nn.functional as fn


def latent_attention(
    q_BNHC: torch.Tensor,
    cache_PZC: torch.Tensor,
    pages_BP: torch.Tensor,
    mask_BNS: torch.Tensor,
    *,
    latent: int,
    scale: float,
) -> torch.Tensor:
    """As the reference. A decode step (N = 1) treats heads as the rows of one product per sequence."""
    batch, new, heads, width = q_BNHC.shape
    context_B1SC = cache_PZC.index_select(0, pages_BP.flatten()).view(batch, 1, -1, width)
    mask_B1NS = mask_BNS.unsqueeze(1)
    # Values are whole cache rows: the fused kernel wants keys and values of one width.
    if new == 1:
        out_B1HC = fn.scaled_dot_product_attention(
            q_BNHC, context_B1SC, context_B1SC, attn_mask=mask_B1NS, scale=scale
        )
        return out_B1HC[..., :latent]
    context_BHSC = context_B1SC.expand(-1, heads, -1, -1)
    out_BHNC = fn.scaled_dot_product_attention(
        q_BNHC.transpose(1, 2), context_BHSC, context_BHSC, attn_mask=mask_B1NS, scale=scale
    )
    return out_BHNC.transpose(1, 2)[..., :latent]
