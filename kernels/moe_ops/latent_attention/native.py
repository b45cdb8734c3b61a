"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.latent_attention import cpu, cpu_expand
from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.latent_attention.rows import PagedRows


def latent_decode_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    rows: PagedRows,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """As the reference, for fp32 queries and an fp32 or bf16 cache.

    A token's result is the same to the bit whatever rows, and new tokens of its own row, are computed with
    it. Raises `RuntimeError` for shapes or types that do not fit.
    """
    if not native.available():
        cpu.latent_decode_(out_THV, q_THQ, cache_PZC, rows, heads=heads, scale=scale)
        return
    torch.ops.tokenworks.latent_decode_(
        out_THV,
        q_THQ,
        cache_PZC,
        rows.pages_BP,
        rows.first_B,
        rows.count_B,
        rows.end_B,
        heads.key.data,
        heads.key.scales,
        heads.key.code,
        heads.kv_b.data,
        heads.kv_b.scales,
        heads.kv_b.code,
        heads.nope,
        heads.latent,
        scale,
    )


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
    """As the reference, for fp32 queries and an fp32 or bf16 cache.

    A token's result is the same to the bit wherever its prompt is cut, and on any number of threads. Raises
    `RuntimeError` for shapes or types that do not fit.
    """
    if not native.available():
        cpu_expand.latent_expand_(out_THV, q_THQ, cache_PZC, pages_P, start, heads=heads, scale=scale)
        return
    torch.ops.tokenworks.latent_expand_(
        out_THV,
        q_THQ,
        cache_PZC,
        pages_P,
        start,
        heads.kv_b.data,
        heads.kv_b.scales,
        heads.kv_b.code,
        heads.nope,
        heads.latent,
        scale,
    )
