"""Norm, rotation and store in one kernel, queries in another.

Unmeasured: checked in Triton's interpreter only.
"""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

import torch
import triton
import triton.language as tl

from moe_ops.accelerator.tuning import kernel


def latent_store_(
    fresh_TC: torch.Tensor,
    norm_L: torch.Tensor,
    eps: float,
    *,
    turn_TR: torch.Tensor,
    slot_T: torch.Tensor,
    cache_PZC: torch.Tensor,
    q_THQ: torch.Tensor,
) -> None:
    """As the reference. `cache_PZC` must be contiguous within a layer, rows of the others may lie apart."""
    tokens, width = fresh_TC.shape
    if not tokens:
        return
    latent, heads, query = len(norm_L), q_THQ.shape[1], q_THQ.shape[2]
    pairs = (width - latent) // 2
    turn_TR2 = torch.view_as_real(turn_TR.contiguous())
    sizes = {"PAIRS": pairs, "PAIRS_UP": triton.next_power_of_2(pairs)}
    _store[(tokens,)](
        fresh_TC, norm_L, turn_TR2, slot_T, cache_PZC, fresh_TC.stride(0), cache_PZC.stride(1), eps,
        LATENT=latent, LATENT_UP=triton.next_power_of_2(latent), **sizes,
    )  # fmt: skip
    _turn[(tokens, triton.cdiv(heads, 16))](
        q_THQ, turn_TR2, q_THQ.stride(0), q_THQ.stride(1), heads, query - 2 * pairs, BLOCK_H=16, **sizes
    )


@kernel
def _store(
    fresh: tl.tensor,
    norm: tl.tensor,
    turn: tl.tensor,
    slots: tl.tensor,
    cache: tl.tensor,
    fresh_step: tl.tensor,
    cache_step: tl.tensor,
    eps: tl.tensor,
    LATENT: tl.constexpr,
    LATENT_UP: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_UP: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    source = fresh + token * fresh_step
    target = cache + tl.load(slots + token) * cache_step
    column = tl.arange(0, LATENT_UP)
    inside = column < LATENT
    value = tl.load(source + column, mask=inside, other=0.0).to(tl.float32)
    scale = 1 / tl.sqrt_rn(tl.sum(value * value, axis=0) / LATENT + eps)
    normed = (value * scale).to(fresh.dtype.element_ty).to(tl.float32)
    factor = tl.load(norm + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + column, (normed * factor).to(cache.dtype.element_ty), mask=inside)

    pair = tl.arange(0, PAIRS_UP)
    real = pair < PAIRS
    at = LATENT + 2 * pair
    even = tl.load(source + at, mask=real, other=0.0).to(tl.float32)
    odd = tl.load(source + at + 1, mask=real, other=0.0).to(tl.float32)
    cos = tl.load(turn + (token * PAIRS + pair) * 2, mask=real, other=0.0)
    sin = tl.load(turn + (token * PAIRS + pair) * 2 + 1, mask=real, other=0.0)
    tl.store(target + at, (even * cos - odd * sin).to(cache.dtype.element_ty), mask=real)
    tl.store(target + at + 1, (even * sin + odd * cos).to(cache.dtype.element_ty), mask=real)


@kernel
def _turn(
    q: tl.tensor,
    turn: tl.tensor,
    q_step: tl.tensor,
    head_step: tl.tensor,
    heads: tl.tensor,
    nope: tl.tensor,
    BLOCK_H: tl.constexpr,
    PAIRS: tl.constexpr,
    PAIRS_UP: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    pair = tl.arange(0, PAIRS_UP)
    real = pair < PAIRS
    cos = tl.load(turn + (token * PAIRS + pair) * 2, mask=real, other=0.0)[None, :]
    sin = tl.load(turn + (token * PAIRS + pair) * 2 + 1, mask=real, other=0.0)[None, :]
    at = q + token * q_step + head[:, None] * head_step + nope + 2 * pair[None, :]
    both = (head < heads)[:, None] & real[None, :]
    even = tl.load(at, mask=both, other=0.0).to(tl.float32)
    odd = tl.load(at + 1, mask=both, other=0.0).to(tl.float32)
    tl.store(at, (even * cos - odd * sin).to(q.dtype.element_ty), mask=both)
    tl.store(at + 1, (even * sin + odd * cos).to(q.dtype.element_ty), mask=both)
