"""Attention of many new tokens: a block of queries of one head goes through the expanded keys and values.

Method: FlashAttention-2, Dao 2023, arXiv 2307.08691, with the rotary part of all heads' keys read from one
place. Unmeasured: checked in Triton's interpreter only.
"""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl

from moe_ops.accelerator.tuning import Tuned, kernel_of, product_type
from moe_ops.latent_attention.pieces import expand_

PIECE = 8192  # context positions expanded at a time: half a gigabyte for 128 heads of 128 and 128 in bf16


def attend(
    q_THQ: torch.Tensor, both_SHU: torch.Tensor, rotary_SR: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`moe_ops.latent_attention.pieces.Attend`."""
    (tokens, heads, query), (context, rotary) = q_THQ.shape, rotary_SR.shape
    nope = query - rotary
    value = both_SHU.shape[2] - nope
    both_SHU, rotary_SR = both_SHU.contiguous(), rotary_SR.contiguous()
    out_THV = q_THQ.new_empty(tokens, heads, value)
    total_TH = q_THQ.new_empty(tokens, heads, dtype=torch.float32)
    widths = {"NOPE": nope, "ROTARY": rotary, "VALUE": value}
    filled = {f"{name}_UP": max(16, triton.next_power_of_2(width)) for name, width in widths.items()}
    _KERNEL.launch(
        lambda tiles: (triton.cdiv(tokens, tiles["BLOCK_T"]), heads),
        q_THQ, both_SHU, rotary_SR, out_THV, total_TH,
        q_THQ.stride(0), q_THQ.stride(1), scale, tokens, context, heads,
        CAUSAL=causal, PRODUCT=product_type(q_THQ), **widths, **filled,
    )  # fmt: skip
    return out_THV, total_TH


latent_expand_ = partial(expand_, attend=attend, piece=PIECE)


@kernel_of("tokens", "context")
def _attend(
    q: tl.tensor,
    both: tl.tensor,
    rotaries: tl.tensor,
    out: tl.tensor,
    totals: tl.tensor,
    token_step: tl.tensor,
    head_step: tl.tensor,
    scale: tl.tensor,
    tokens: tl.tensor,
    context: tl.tensor,
    heads: tl.tensor,
    CAUSAL: tl.constexpr,
    PRODUCT: tl.constexpr,
    NOPE: tl.constexpr,
    ROTARY: tl.constexpr,
    VALUE: tl.constexpr,
    NOPE_UP: tl.constexpr,
    ROTARY_UP: tl.constexpr,
    VALUE_UP: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
) -> None:
    head = tl.program_id(1).to(tl.int64)
    token = (tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)
    there = token < tokens
    nope, rotary, value = tl.arange(0, NOPE_UP), tl.arange(0, ROTARY_UP), tl.arange(0, VALUE_UP)
    q_row = q + token[:, None] * token_step + head * head_step
    q_nope = tl.load(q_row + nope[None, :], mask=there[:, None] & (nope < NOPE)[None, :], other=0.0)
    q_rotary = tl.load(
        q_row + NOPE + rotary[None, :], mask=there[:, None] & (rotary < ROTARY)[None, :], other=0.0
    )
    q_nope, q_rotary = q_nope.to(PRODUCT), q_rotary.to(PRODUCT)
    best = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    found = tl.zeros((BLOCK_T, VALUE_UP), tl.float32)
    end = context
    if CAUSAL:
        end = tl.minimum(context, (tl.program_id(0) + 1) * BLOCK_T)
    for first in range(0, end, BLOCK_S):
        place = (first + tl.arange(0, BLOCK_S)).to(tl.int64)
        inside = place < context
        row = both + (place[:, None] * heads + head) * (NOPE + VALUE)
        k_nope = tl.load(row + nope[None, :], mask=inside[:, None] & (nope < NOPE)[None, :], other=0.0)
        k_rotary = tl.load(
            rotaries + place[:, None] * ROTARY + rotary[None, :],
            mask=inside[:, None] & (rotary < ROTARY)[None, :], other=0.0,
        )  # fmt: skip
        v = tl.load(row + NOPE + value[None, :], mask=inside[:, None] & (value < VALUE)[None, :], other=0.0)
        scores = tl.dot(q_nope, tl.trans(k_nope.to(PRODUCT)), input_precision="ieee")
        scores += tl.dot(q_rotary, tl.trans(k_rotary.to(PRODUCT)), input_precision="ieee")
        visible = inside[None, :]
        if CAUSAL:
            visible = visible & (place[None, :] <= token[:, None])
        scores = tl.where(visible, scores * scale, float("-inf"))
        better = tl.maximum(best, tl.max(scores, axis=1))  # position 0 is seen by all: never −inf
        shrink = tl.exp(best - better)
        power = tl.exp(scores - better[:, None])
        total = total * shrink + tl.sum(power, axis=1)
        found = found * shrink[:, None] + tl.dot(power.to(PRODUCT), v.to(PRODUCT), input_precision="ieee")
        best = better
    tl.store(totals + token * heads + head, best + tl.log(total), mask=there)
    tl.store(
        out + (token[:, None] * heads + head) * VALUE + value[None, :],
        (found / total[:, None]).to(out.dtype.element_ty),
        mask=there[:, None] & (value < VALUE)[None, :],
    )


_KERNEL = Tuned(
    _attend,
    [
        triton.Config({"BLOCK_T": 64, "BLOCK_S": 32}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK_T": 64, "BLOCK_S": 64}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK_T": 128, "BLOCK_S": 32}, num_warps=8, num_stages=2),
        triton.Config({"BLOCK_T": 128, "BLOCK_S": 64}, num_warps=8, num_stages=2),
    ],
    key=["CAUSAL", "NOPE", "ROTARY", "VALUE"],
)
