"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.linear import cpu
from moe_ops.linear.packing import PackedMatrix


def linear(
    x_TI: torch.Tensor, w: PackedMatrix, *, out: torch.Tensor | None = None, add: bool = False
) -> torch.Tensor:
    """`x · Wᵀ` in fp32, written to or with `add` added to `out`, which is returned (new when not given).

    `w.activations` says which weights meet rounded activations. Rows of `x` and `out` may lie apart, as in a
    slice of columns. A row's result does not depend on the others. Raises `RuntimeError` for shapes or types
    that do not fit.
    """
    if not native.available():
        return cpu.linear(x_TI, w, out=out, add=add)
    if out is None:
        out, add = x_TI.new_empty(len(x_TI), w.outputs), False
    torch.ops.tokenworks.linear(x_TI, w.data, w.scales, w.code, w.outputs, out, add)
    return out
