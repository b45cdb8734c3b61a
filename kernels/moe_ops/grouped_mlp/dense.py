"""Experts as accelerators multiply by them: plain matrices on the device, made once."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from moe_ops.grouped_mlp.packing import PackedExperts, one_expert, unpack_experts

_DENSE: WeakKeyDictionary[PackedExperts, DenseExperts] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class DenseExperts:
    """Weights as published, rows being outputs, J = 2 I with the gate first.

    FP8 factors are (E, 2, ⌈I / 128⌉, ⌈D / 128⌉) and (E, ⌈D / 128⌉, ⌈I / 128⌉).
    """

    gate_up_EJD: torch.Tensor
    down_EDI: torch.Tensor
    gate_up_scale: torch.Tensor | None = None
    down_scale: torch.Tensor | None = None


def dense_experts(experts: PackedExperts, *, like: torch.Tensor) -> DenseExperts:
    """`experts` in the type and on the device of `like`, kept for as long as they live.

    They are unpacked one after the other: a stack of a large model in fp32 is more than a host may have.
    """
    dense = _DENSE.get(experts)
    if dense is None or (dense.down_EDI.dtype, dense.down_EDI.device) != (like.dtype, like.device):
        dense = _DENSE[experts] = _unpacked(experts, like)
    return dense


def _unpacked(experts: PackedExperts, like: torch.Tensor) -> DenseExperts:
    e = experts
    gate_up_EJD = like.new_empty(e.experts, 2 * e.width, e.hidden)
    down_EDI = like.new_empty(e.experts, e.hidden, e.width)
    for expert in range(e.experts):
        gate_up_1JD, down_1DI = unpack_experts(one_expert(e, expert))
        gate_up_EJD[expert].copy_(gate_up_1JD[0])
        down_EDI[expert].copy_(down_1DI[0])
    return DenseExperts(gate_up_EJD, down_EDI)
