"""One program for each token. Unmeasured: checked in Triton's interpreter only."""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

import torch
import triton
import triton.language as tl

from moe_ops.accelerator.tuning import kernel


def rms_norm(x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """As the reference. Rows of `x_TD` may lie apart."""
    out_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype, device=x_TD.device)
    _launch(x_TD, x_TD, weight_D, out_TD, eps, add=False)
    return out_TD


def add_rms_norm_(
    residual_TD: torch.Tensor, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float
) -> torch.Tensor:
    """Add `x_TD` to `residual_TD` in place and return the norm of the sum, reading it once."""
    out_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype, device=x_TD.device)
    _launch(x_TD, residual_TD, weight_D, out_TD, eps, add=True)
    return out_TD


def _launch(
    x_TD: torch.Tensor,
    residual_TD: torch.Tensor,
    weight_D: torch.Tensor,
    out_TD: torch.Tensor,
    eps: float,
    *,
    add: bool,
) -> None:
    tokens, hidden = x_TD.shape
    block = triton.next_power_of_2(hidden)
    if tokens:
        _norm[(tokens,)](
            x_TD, residual_TD, weight_D, out_TD, x_TD.stride(0), residual_TD.stride(0), hidden, eps,
            ADD=add, BLOCK_D=block, num_warps=min(16, max(1, block // 512)),
        )  # fmt: skip


@kernel
def _norm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    x_step: tl.tensor,
    residual_step: tl.tensor,
    hidden: tl.tensor,
    eps: tl.tensor,
    ADD: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    inside = column < hidden
    value = tl.load(x + token * x_step + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        place = residual + token * residual_step + column
        value += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        value = value.to(residual.dtype.element_ty)
        tl.store(place, value, mask=inside)
        value = value.to(tl.float32)
    scale = 1 / tl.sqrt_rn(tl.sum(value * value, axis=0) / hidden + eps)
    # Rounded before the weight, as the models were trained.
    normed = (value * scale).to(out.dtype.element_ty).to(tl.float32)
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * hidden + column, (normed * factor).to(out.dtype.element_ty), mask=inside)
