"""Products of tokens sorted by expert: gate, up and activation in one kernel, down and weight in the next,
and each token's sum in fixed order in the last.

Weights are bf16, fp16 or fp32, or e4m3 with a factor for each 128 × 128 block, which the sum over a block is
multiplied by; activations stay as they are. Unmeasured: checked in Triton's interpreter only.
"""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as fn
import triton
import triton.language as tl

from moe_ops.accelerator.groups import rows_per_block, sort_pairs
from moe_ops.accelerator.tuning import Tuned, kernel, kernel_of, product_type
from moe_ops.grouped_mlp.dense import DenseExperts, dense_experts
from moe_ops.grouped_mlp.packing import PackedExperts


def grouped_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: DenseExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """Add `Σ weight · down(silu(gate x) · up x)` over each token's experts to `out_TD` and return it.

    The last `shared` experts take part for every token, with weight 1. Expert numbers that are not here,
    below 0 or too high, add nothing.
    """
    count, hidden, width = experts.down_EDI.shape
    if shared:
        shared_S = torch.arange(count - shared, count, device=x_TD.device)
        experts_TK = torch.cat([experts_TK, shared_S.expand(len(x_TD), shared)], dim=1)
        weights_TK = fn.pad(weights_TK, (0, shared), value=1.0)
    tokens, top_k = experts_TK.shape
    pairs = tokens * top_k
    if not pairs:
        return out_TD
    blocks = sort_pairs(experts_TK, experts=count, rows=rows_per_block(pairs, count))
    act_XI = x_TD.new_empty(len(blocks.order_X), width)
    y_MD = out_TD.new_empty(pairs, hidden)
    common: dict[str, Any] = {"BLOCK_M": blocks.rows, "PRODUCT": product_type(x_TD)}
    programs = len(blocks.expert_B)
    _UP.launch(
        lambda tiles: (programs, triton.cdiv(width, tiles["BLOCK_N"])),
        x_TD, experts.gate_up_EJD, experts.gate_up_scale, blocks.order_X, blocks.expert_B, act_XI,
        x_TD.stride(0), top_k, pairs, hidden, width, count, **common,
    )  # fmt: skip
    _DOWN.launch(
        lambda tiles: (programs, triton.cdiv(hidden, tiles["BLOCK_N"])),
        act_XI, experts.down_EDI, experts.down_scale, blocks.order_X, blocks.expert_B,
        weights_TK.contiguous(), y_MD, pairs, hidden, width, count, **common,
    )  # fmt: skip
    _sum[(tokens, triton.cdiv(hidden, 1024))](
        y_MD, experts_TK.contiguous(), out_TD, out_TD.stride(0), hidden, count, TOP_K=top_k, BLOCK_D=1024
    )
    return out_TD


def packed_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """As `grouped_mlp_`, with experts that are unpacked at first use, to the type and device of `x_TD`."""
    return grouped_mlp_(
        out_TD,
        x_TD,
        experts=dense_experts(experts, like=x_TD),
        weights_TK=weights_TK,
        experts_TK=experts_TK,
        shared=shared,
    )


@kernel_of("pairs")
def _up(
    x: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    order: tl.tensor,
    block_experts: tl.tensor,
    act: tl.tensor,
    x_step: tl.tensor,
    top_k: tl.tensor,
    pairs: tl.tensor,
    hidden: tl.tensor,
    width: tl.tensor,
    experts: tl.tensor,
    BLOCK_M: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    block = tl.program_id(0).to(tl.int64)
    expert = tl.load(block_experts + block)
    if expert < experts:
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        pair = tl.load(order + row)
        there = pair < pairs
        x_row = x + pair // top_k * x_step
        column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        wanted = column < width
        gate_row = weight + (expert * 2 * width + column) * hidden
        gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, hidden, BLOCK_K):
            deep = first + tl.arange(0, BLOCK_K)
            inside = deep < hidden
            x_tile = tl.load(x_row[:, None] + deep[None, :], mask=there[:, None] & inside[None, :], other=0.0)
            at = gate_row[None, :] + deep[:, None]
            real = wanted[None, :] & inside[:, None]
            gate_tile, up_tile = _weights(at, real), _weights(at + width * hidden, real)
            gate_part = tl.dot(x_tile.to(PRODUCT), gate_tile.to(PRODUCT), input_precision="ieee")
            up_part = tl.dot(x_tile.to(PRODUCT), up_tile.to(PRODUCT), input_precision="ieee")
            if scale is not None:
                across = tl.cdiv(hidden, 128)
                factor = (
                    scale + (expert * 2 * tl.cdiv(width, 128) + tl.program_id(1) * BLOCK_N // 128) * across
                )
                gate_part *= tl.load(factor + first // 128)
                up_part *= tl.load(factor + tl.cdiv(width, 128) * across + first // 128)
            gate += gate_part
            up += up_part
        result = gate / (1 + tl.exp(-gate)) * up
        target = act + row[:, None] * width + column[None, :]
        tl.store(target, result.to(act.dtype.element_ty), mask=there[:, None] & wanted[None, :])


@kernel_of("pairs")
def _down(
    act: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    order: tl.tensor,
    block_experts: tl.tensor,
    pair_weights: tl.tensor,
    y: tl.tensor,
    pairs: tl.tensor,
    hidden: tl.tensor,
    width: tl.tensor,
    experts: tl.tensor,
    BLOCK_M: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    block = tl.program_id(0).to(tl.int64)
    expert = tl.load(block_experts + block)
    if expert < experts:
        row = block * BLOCK_M + tl.arange(0, BLOCK_M)
        pair = tl.load(order + row)
        there = pair < pairs
        column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        wanted = column < hidden
        weight_row = weight + (expert * hidden + column) * width
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, width, BLOCK_K):
            deep = first + tl.arange(0, BLOCK_K)
            inside = deep < width
            act_tile = tl.load(
                act + row[:, None] * width + deep[None, :], mask=there[:, None] & inside[None, :], other=0.0
            )
            tile = _weights(weight_row[None, :] + deep[:, None], wanted[None, :] & inside[:, None])
            part = tl.dot(act_tile.to(PRODUCT), tile.to(PRODUCT), input_precision="ieee")
            if scale is not None:
                line = expert * tl.cdiv(hidden, 128) + tl.program_id(1) * BLOCK_N // 128
                part *= tl.load(scale + line * tl.cdiv(width, 128) + first // 128)
            total += part
        total *= tl.load(pair_weights + pair, mask=there, other=0.0)[:, None]
        target = y + pair[:, None] * hidden + column[None, :]
        tl.store(target, total.to(y.dtype.element_ty), mask=there[:, None] & wanted[None, :])


@kernel
def _weights(at: tl.tensor, real: tl.tensor) -> tl.tensor:
    """A tile of weights; e4m3 takes the way through fp16, which holds all its numbers."""
    tile = tl.load(at, mask=real, other=0.0)
    if tile.dtype == tl.float8e4nv:
        tile = tile.to(tl.float16)
    return tile


@kernel
def _sum(
    y: tl.tensor,
    chosen: tl.tensor,
    out: tl.tensor,
    out_step: tl.tensor,
    hidden: tl.tensor,
    experts: tl.tensor,
    TOP_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = column < hidden
    total = tl.zeros((BLOCK_D,), tl.float32)
    for slot in tl.static_range(TOP_K):
        expert = tl.load(chosen + token * TOP_K + slot)
        here = (expert >= 0) & (expert < experts)
        part = tl.load(y + (token * TOP_K + slot) * hidden + column, mask=inside & here, other=0.0)
        total += part.to(tl.float32)
    at = out + token * out_step + column
    total += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, total.to(out.dtype.element_ty), mask=inside)


# BLOCK_N and BLOCK_K divide 128, so that a tile lies in one FP8 block.
_CONFIGS = [
    triton.Config({"BLOCK_N": 32, "BLOCK_K": 32}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=4),
    triton.Config({"BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=4),
    triton.Config({"BLOCK_N": 64, "BLOCK_K": 128}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_N": 128, "BLOCK_K": 128}, num_warps=8, num_stages=3),
]
_UP = Tuned(_up, _CONFIGS, key=["hidden", "width", "BLOCK_M"])
_DOWN = Tuned(_down, _CONFIGS, key=["hidden", "width", "BLOCK_M"])
