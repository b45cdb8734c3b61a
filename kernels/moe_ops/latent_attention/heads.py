"""The two halves of `kv_b_proj` as absorbed attention multiplies by them: one small matrix per head.

A matrix (inputs, outputs) is cut into panels of 64 columns, the last filled up with zeros: (heads, panels,
inputs, 64). int8 has one fp32 scale per head, input and 128 columns: (heads, ⌈outputs / 128⌉, inputs).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as fn

_PANEL, _GROUP = 64, 128
_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PackedHeads:
    """`outputs` columns per head; `scales` is empty for float types."""

    data: torch.Tensor
    scales: torch.Tensor
    outputs: int

    def __post_init__(self) -> None:
        heads, panels, inputs, width = self.data.shape
        scales = (heads, -(-self.outputs // _GROUP), inputs) if self.data.dtype == torch.int8 else (0,)
        if width != _PANEL or panels != -(-self.outputs // _PANEL) or self.data.dtype not in _DTYPES:
            raise ValueError(f"{self.data.dtype} {tuple(self.data.shape)} holds no {self.outputs} columns")
        if tuple(self.scales.shape) != scales or self.scales.dtype != torch.float32:
            raise ValueError(f"scales {tuple(self.scales.shape)}: expected float32 {scales}")


@dataclass(frozen=True, slots=True, eq=False)
class LatentHeads:
    """`key` takes position-free queries to the latent space (K → L), `value` latents to values (L → V)."""

    key: PackedHeads
    value: PackedHeads

    @property
    def nope(self) -> int:
        """Width of the position-free part of a query."""
        return self.key.data.shape[2]

    @property
    def latent(self) -> int:
        """Width of a latent."""
        return self.key.outputs


def pack_latent_heads(kv_b_HUL: torch.Tensor, *, nope: int, dtype: torch.dtype) -> LatentHeads:
    """Pack what maps a latent to each head's `nope`-wide key and to its value (U = both widths), in fp32,
    bf16 or int8.
    """
    key_HKL, value_HVL = kv_b_HUL[:, :nope], kv_b_HUL[:, nope:]
    return LatentHeads(_pack(key_HKL, dtype), _pack(value_HVL.transpose(1, 2), dtype))


def unpack_heads(packed: PackedHeads) -> torch.Tensor:
    """The fp32 matrices (heads, inputs, outputs) that the kernels multiply by."""
    weight_HIN = packed.data.float().transpose(1, 2).flatten(2)
    if packed.data.dtype == torch.int8:
        scale_HIG = packed.scales.transpose(1, 2)
        weight_HIN = weight_HIN * scale_HIG.repeat_interleave(_GROUP, dim=2)[..., : weight_HIN.shape[2]]
    return weight_HIN[..., : packed.outputs].contiguous()


def _pack(weight_HIO: torch.Tensor, dtype: torch.dtype) -> PackedHeads:
    outputs = weight_HIO.shape[2]
    scales = torch.empty(0)
    weight_HIN = fn.pad(weight_HIO.float(), (0, -outputs % _PANEL))
    if dtype == torch.int8:
        scale_HIG = _scales(weight_HIN)
        inverse_HIG = torch.where(scale_HIG == 0, 0.0, 1 / scale_HIG)
        weight_HIN = weight_HIN * inverse_HIG.repeat_interleave(_GROUP, dim=2)[..., : weight_HIN.shape[2]]
        weight_HIN = weight_HIN.round().clamp(-127, 127)
        scales = scale_HIG.transpose(1, 2).contiguous()
    data = weight_HIN.unflatten(2, (-1, _PANEL)).transpose(1, 2).to(dtype).contiguous()
    return PackedHeads(data, scales, outputs)


def _scales(weight_HIN: torch.Tensor) -> torch.Tensor:
    whole_HIN = fn.pad(weight_HIN, (0, -weight_HIN.shape[2] % _GROUP))
    largest_HIG: torch.Tensor = whole_HIN.unflatten(2, (-1, _GROUP)).abs().amax(-1)
    return largest_HIG / 127
