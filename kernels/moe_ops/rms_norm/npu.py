"""Ascend's own operation. Unmeasured: never run on an NPU."""

from __future__ import annotations

import torch

from moe_ops.accelerator.npu import operations


def rms_norm(x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """As the reference, up to where the result is rounded."""
    out_TD: torch.Tensor = operations().npu_rms_norm(x_TD.contiguous(), weight_D.to(x_TD.dtype), epsilon=eps)[
        0
    ]
    return out_TD
