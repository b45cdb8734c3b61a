"""`kv_b_proj` as latent attention multiplies by it, in the layout of every other matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from moe_ops.linear.packing import Activations, PackedMatrix, WeightFormat, pack_matrix


@dataclass(frozen=True, slots=True, eq=False)
class LatentHeads:
    """`kv_b` takes a latent to each head's position-free key and then its value, head after head. `key` takes
    position-free queries to the latent space: the keys' rows once more, turned, so heads · L outputs and K
    inputs.

    Raises `ValueError` for matrices that do not belong together.
    """

    kv_b: PackedMatrix
    key: PackedMatrix

    def __post_init__(self) -> None:
        if self.key.outputs % self.latent or self.kv_b.outputs % self.heads or self.value < 1:
            raise ValueError(
                f"a key matrix of {self.key.outputs} × {self.key.inputs} is no part of one of "
                f"{self.kv_b.outputs} × {self.kv_b.inputs}"
            )

    @property
    def heads(self) -> int:
        """How many there are."""
        return self.key.outputs // self.latent

    @property
    def nope(self) -> int:
        """Width of the position-free part of a query."""
        return self.key.inputs

    @property
    def value(self) -> int:
        """Width of a head's value."""
        return self.kv_b.outputs // self.heads - self.nope

    @property
    def latent(self) -> int:
        """Width of a latent."""
        return self.kv_b.inputs


def pack_latent_heads(
    kv_b_HUL: torch.Tensor, *, nope: int, weight_format: WeightFormat, activations: Activations = "int8"
) -> LatentHeads:
    """Pack what maps a latent to each head's `nope`-wide key and to its value (U = both widths)."""
    key_HLK = kv_b_HUL[:, :nope].transpose(1, 2)
    return LatentHeads(
        kv_b=pack_matrix(kv_b_HUL.flatten(0, 1), weight_format, activations=activations),
        key=pack_matrix(key_HLK.flatten(0, 1), weight_format, activations=activations),
    )
