"""The definition: all heads share one key per position, the latent and its rotary part side by side."""

from __future__ import annotations

import torch

from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.latent_attention.rows import PagedRows
from moe_ops.linear.packing import PackedMatrix, unpack_matrix
from moe_ops.linear.reference import activations_met


def latent_decode_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    rows: PagedRows,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """Write to `out_THV` the values that each new token of `rows` attends to.

    `q_THQ` holds K position-free numbers, then R rotated ones. They are taken into the latent space, where
    they meet the cache's rows; weighted latents become values at the end. A token sees its own position and
    those before it. Softmax in fp32.
    """
    key_HLK = _per_head(heads.key, heads)
    value_HVL = _per_head(heads.kv_b, heads)[:, heads.nope :]
    absorbed_THL = torch.einsum("thk,hlk->thl", _met(q_THQ[..., : heads.nope], heads.key), key_HLK)
    q_THC = torch.cat([absorbed_THL, q_THQ[..., heads.nope :]], dim=-1)
    for pages_P, first, count, end in zip(
        rows.pages_BP, rows.first_B.tolist(), rows.count_B.tolist(), rows.end_B.tolist(), strict=True
    ):
        columns = -(-end // cache_PZC.shape[1])
        context_SC = cache_PZC[pages_P[:columns].long()].flatten(0, 1)[:end].float()
        for offset in range(count):
            seen_SC = context_SC[: end - count + 1 + offset]
            weights_HS = (q_THC[first + offset] @ seen_SC.t() * scale).softmax(-1)
            latent_HL = weights_HS @ seen_SC[:, : heads.latent]
            met_HL = activations_met(latent_HL, heads.kv_b)
            out_THV[first + offset] = torch.einsum("hl,hvl->hv", met_HL, value_HVL)


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
    """Write to `out_THV` the values that the new tokens of one row attend to, at positions from `start` on.

    `pages_P` (int32) cover the row's context, new tokens included. Keys and values of all heads are made from
    the latents.
    """
    end = start + len(q_THQ)
    context_SC = cache_PZC[pages_P[: -(-end // cache_PZC.shape[1])].long()].flatten(0, 1)[:end].float()
    latent_SL = activations_met(context_SC[:, : heads.latent], heads.kv_b)
    met_SC = torch.cat([latent_SL, context_SC[:, heads.latent :]], dim=1)
    kv_b_HUL = _per_head(heads.kv_b, heads)
    out_THV.copy_(expanded_attention(q_THQ, met_SC, kv_b_HUL, nope=heads.nope, scale=scale))


def expanded_attention(
    q_THQ: torch.Tensor, context_SC: torch.Tensor, kv_b_HUL: torch.Tensor, *, nope: int, scale: float
) -> torch.Tensor:
    """The same attention as published, before absorption: keys and values of every head are computed from the
    latents of a context whose last T positions are the queries' own.

    `kv_b_HUL` maps a latent to a head's `nope`-wide key and its value. Returns values of shape (T, H, V).
    """
    latent = kv_b_HUL.shape[2]
    both_SHU = torch.einsum("sl,hul->shu", context_SC[:, :latent], kv_b_HUL)
    rotary_SHR = context_SC[:, None, latent:].expand(-1, kv_b_HUL.shape[0], -1)
    keys_SHQ = torch.cat([both_SHU[..., :nope], rotary_SHR], dim=-1)
    scores_HTS = torch.einsum("thq,shq->hts", q_THQ, keys_SHQ) * scale
    tokens, context = len(q_THQ), len(context_SC)
    hidden_TS = torch.ones(tokens, context, dtype=torch.bool).triu(context - tokens + 1)
    weights_HTS = scores_HTS.masked_fill(hidden_TS, float("-inf")).softmax(-1)
    return torch.einsum("hts,shv->thv", weights_HTS, both_SHU[..., nope:])


def _per_head(matrix: PackedMatrix, heads: LatentHeads) -> torch.Tensor:
    per_head: torch.Tensor = unpack_matrix(matrix).unflatten(0, (heads.heads, -1))
    return per_head


def _met(x_THI: torch.Tensor, matrix: PackedMatrix) -> torch.Tensor:
    return activations_met(x_THI.flatten(0, 1), matrix).view(x_THI.shape)
