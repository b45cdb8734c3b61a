"""Experts as the kernels read them: two packed matrices with the tiles of one expert after the other.

In `gate_up` a tile of 16 gate rows and the tile of the same up rows take turns, so that both factors of an
activation come out together. Widths and the hidden size are filled up to whole tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as fn

from moe_ops.linear.packing import (
    TILE,
    Activations,
    PackedMatrix,
    WeightFormat,
    pack_matrix,
    stack_matrices,
    unpack_matrix,
)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PackedExperts:
    """`experts` gated MLPs from `hidden` to `hidden` through `width`.

    `gate_up` has experts × 2 × ⌈width⌉ outputs and `hidden` inputs, `down` experts × ⌈hidden⌉ outputs and
    `width` inputs, where ⌈ ⌉ is up to whole tiles of 16.
    """

    experts: int
    hidden: int
    width: int
    gate_up: PackedMatrix
    down: PackedMatrix

    def __post_init__(self) -> None:
        up = self.experts * 2 * _whole(self.width), self.hidden
        down = self.experts * _whole(self.hidden), self.width
        for name, matrix, expected in (("gate_up", self.gate_up, up), ("down", self.down, down)):
            if (matrix.outputs, matrix.inputs) != expected:
                raise ValueError(
                    f"{name} of {self.experts} experts {self.hidden} → {self.width} must be "
                    f"{expected[0]} × {expected[1]}, not {matrix.outputs} × {matrix.inputs}"
                )
        if (self.gate_up.format, self.gate_up.activations) != (self.down.format, self.down.activations):
            raise ValueError("gate_up and down must be packed alike")

    @property
    def format(self) -> WeightFormat:
        """That of both matrices."""
        return self.gate_up.format


def pack_experts(
    gate_up_EJD: torch.Tensor,
    down_EDI: torch.Tensor,
    weight_format: WeightFormat,
    *,
    activations: Activations = "int8",
) -> PackedExperts:
    """Experts whose rows are outputs, J = 2 I with the gate in the first I rows.

    Raises `ValueError` when the shapes do not fit each other.
    """
    if gate_up_EJD.dim() != 3 or down_EDI.dim() != 3:
        raise ValueError("expected gate_up_EJD and down_EDI with three dimensions each")
    experts, hidden, width = down_EDI.shape
    if gate_up_EJD.shape != (experts, 2 * width, hidden):
        raise ValueError(f"gate_up {tuple(gate_up_EJD.shape)} does not fit down {tuple(down_EDI.shape)}")
    parts = [
        (
            _pack(_take_turns(gate_up_JD), weight_format, activations),
            _pack(down_DI, weight_format, activations),
        )
        for gate_up_JD, down_DI in zip(gate_up_EJD, down_EDI, strict=True)
    ]
    gate_up, down = (stack_matrices(list(side)) for side in zip(*parts, strict=True))
    return PackedExperts(experts, hidden, width, gate_up, down)


def stack_experts(parts: Sequence[PackedExperts]) -> PackedExperts:
    """All experts of `parts`, which must be of one size and packed alike, in their order."""
    first = parts[0]
    return PackedExperts(
        sum(part.experts for part in parts),
        first.hidden,
        first.width,
        stack_matrices([part.gate_up for part in parts]),
        stack_matrices([part.down for part in parts]),
    )


def one_expert(experts: PackedExperts, expert: int) -> PackedExperts:
    """That expert as a stack of one; shares its memory."""
    gate_up, down = (_one(side, expert, experts.experts) for side in (experts.gate_up, experts.down))
    return PackedExperts(1, experts.hidden, experts.width, gate_up, down)


def split_mlp(
    gate_ID: torch.Tensor, up_ID: torch.Tensor, down_DI: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One gated MLP as `count` experts whose sum it is, in the shapes that `pack_experts` takes."""
    gate_EID, up_EID = (part.unflatten(0, (count, -1)) for part in (gate_ID, up_ID))
    down_EDI = down_DI.unflatten(1, (count, -1)).transpose(0, 1)
    return torch.cat([gate_EID, up_EID], dim=1), down_EDI


def unpack_experts(experts: PackedExperts) -> tuple[torch.Tensor, torch.Tensor]:
    """`(gate_up_EJD, down_EDI)` in fp32 as the kernels multiply by them."""
    e = experts
    turns_EXGYD = unpack_matrix(e.gate_up).view(e.experts, -1, 2, TILE, e.hidden)
    gate_EID, up_EID = turns_EXGYD.transpose(1, 2).flatten(2, 3)[:, :, : e.width].unbind(1)
    down_EDI = unpack_matrix(e.down).unflatten(0, (e.experts, -1))[:, : e.hidden]
    return torch.cat([gate_EID, up_EID], dim=1), down_EDI.contiguous()


def _one(stack: PackedMatrix, expert: int, count: int) -> PackedMatrix:
    tiles = stack.data.shape[0] // count
    mine = slice(expert * tiles, (expert + 1) * tiles)
    scales = stack.scales[mine] if len(stack.scales) else stack.scales
    return replace(stack, outputs=tiles * TILE, data=stack.data[mine], scales=scales)


def _take_turns(gate_up_JD: torch.Tensor) -> torch.Tensor:
    half_GID = gate_up_JD.unflatten(0, (2, -1))
    whole_GID = fn.pad(half_GID, (0, 0, 0, -half_GID.shape[1] % TILE))
    turns_XGYD: torch.Tensor = whole_GID.unflatten(1, (-1, TILE)).transpose(0, 1)
    return turns_XGYD.flatten(0, 2)


def _pack(weight_OI: torch.Tensor, weight_format: WeightFormat, activations: Activations) -> PackedMatrix:
    whole_NI = fn.pad(weight_OI, (0, 0, 0, -weight_OI.shape[0] % TILE))
    return pack_matrix(whole_NI, weight_format, activations=activations)


def _whole(count: int) -> int:
    return -(-count // TILE) * TILE
