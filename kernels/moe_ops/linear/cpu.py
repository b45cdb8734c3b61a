"""Plain torch, on any device: the weights are unpacked at first use, to where and in the type in which they
meet activations, and kept beside the packed ones.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from moe_ops.linear.packing import PackedMatrix, unpack_matrix

_UNPACKED: WeakKeyDictionary[PackedMatrix, torch.Tensor] = WeakKeyDictionary()


def linear(
    x_TI: torch.Tensor, w: PackedMatrix, *, out: torch.Tensor | None = None, add: bool = False
) -> torch.Tensor:
    """As the reference, with float activations as they are; the result goes, or is added, to `out`."""
    weight_IO = unpacked(w, like=x_TI).t()
    if out is None:
        return x_TI @ weight_IO
    return out.addmm_(x_TI, weight_IO) if add else torch.mm(x_TI, weight_IO, out=out)


def logits(x_TI: torch.Tensor, w: PackedMatrix) -> torch.Tensor:
    """`x · Wᵀ` in fp32. Of bf16 factors only CUDA gives it unrounded: two best tokens may come out equal
    elsewhere.
    """
    if x_TI.device.type == "cuda" and x_TI.dtype != torch.float32:
        return torch.mm(x_TI, unpacked(w, like=x_TI).t(), out_dtype=torch.float32)
    return linear(x_TI, w).float()


def unpacked(w: PackedMatrix, *, like: torch.Tensor) -> torch.Tensor:
    """`unpack_matrix(w)` in the type and on the device of `like`, made once for as long as `w` lives."""
    weight_OI = _UNPACKED.get(w)
    if weight_OI is None or (weight_OI.dtype, weight_OI.device) != (like.dtype, like.device):
        weight_OI = _UNPACKED[w] = unpack_matrix(w).to(like)
    return weight_OI
