"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.rms_norm import cpu


def rms_norm(x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
    """As the reference, in fp32; a row's result does not depend on the others."""
    if not native.available() or x_TD.dtype != torch.float32:
        return cpu.rms_norm(x_TD, weight_D, eps)
    normed: torch.Tensor = torch.ops.tokenworks.rms_norm(x_TD, weight_D, eps)
    return normed
