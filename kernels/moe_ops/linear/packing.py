"""Weights as the kernels read them: in order, 16 rows at a time, each byte once.

A tile is 16 outputs (the last one is filled up with zeros). Within a tile inputs follow each other, those
that one instruction sums side by side:

    float32   (tiles, inputs, 16)
    bfloat16  (tiles, ⌈inputs / 2⌉, 16, 2)
    int8      (tiles, ⌈inputs / 4⌉, 16, 4), scales (tiles, ⌈inputs / 128⌉, 16)
    int4      (tiles, 4 · ⌈inputs / 32⌉, 16, 4), scales (tiles, ⌈inputs / 32⌉, 16); a byte holds input i in
              its low half and i + 4 in its high half, both plus 8

All instruction sets read this one layout, so copies on disk fit every machine. Scales are bfloat16: a weight
is its integer times the scale of its output and group of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as fn

WeightFormat = Literal["float32", "bfloat16", "int8", "int4"]
Activations = Literal["int8", "float"]
FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
LAYOUT_VERSION = 2  # part of the key of copies on disk
TILE = 16
GROUP = {"int8": 128, "int4": 32}
_TOGETHER = {"float32": 1, "bfloat16": 2, "int8": 4, "int4": 32}
_FLOAT_DTYPE = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_INT4_ZERO = 8


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class PackedMatrix:
    """A matrix of `outputs` × `inputs` in the layout above; `data` and `scales` can be stored as they are.

    `scales` is empty for float formats. `activations` says what weights meet. `"float"`: fp32 activations as
    they are (slower). `"int8"`: integer weights meet activations rounded to int8 per token and group of 128
    inputs; bfloat16 ones meet activations rounded to bfloat16 where the processor multiplies those
    (AVX512_BF16), as in a bf16 checkpoint's own forward pass, with sums in fp32, and fp32 elsewhere. float32
    weights always meet fp32.
    """

    format: WeightFormat
    outputs: int
    inputs: int
    data: torch.Tensor
    scales: torch.Tensor
    activations: Activations = "int8"

    def __post_init__(self) -> None:
        data, scales = packed_shapes(self.format, outputs=self.outputs, inputs=self.inputs)
        if self.activations not in get_args(Activations):
            raise ValueError(f"activations {self.activations!r}: expected one of {get_args(Activations)}")
        for name, tensor, expected in (("data", self.data, data), ("scales", self.scales, scales)):
            if (tuple(tensor.shape), tensor.dtype) != expected or not tensor.is_contiguous():
                raise ValueError(
                    f"{name} of a {self.format} matrix {self.outputs} × {self.inputs} must be contiguous "
                    f"{expected[1]} {expected[0]}, not {tensor.dtype} {tuple(tensor.shape)}"
                )

    @property
    def code(self) -> int:
        """Format and activations as one number, as `csrc/matrix.h` counts them."""
        return FORMATS.index(self.format) + len(FORMATS) * (self.activations == "float")

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads."""
        return self.data.nbytes + self.scales.nbytes


ShapeAndType = tuple[tuple[int, ...], torch.dtype]


def packed_shapes(
    weight_format: WeightFormat, *, outputs: int, inputs: int
) -> tuple[ShapeAndType, ShapeAndType]:
    """Shape and dtype of `data` and `scales`. Raises `ValueError` for an unknown format or no rows at all."""
    kind = weight_format
    if kind not in FORMATS or outputs < 1 or inputs < 1:
        raise ValueError(f"no matrix of {outputs} × {inputs} in format {kind!r} ({', '.join(FORMATS)})")
    tiles = _up(outputs, TILE)
    steps = _up(inputs, _TOGETHER[kind])
    if kind == "float32":
        return ((tiles, steps, TILE), torch.float32), ((0,), torch.bfloat16)
    if kind == "bfloat16":
        return ((tiles, steps, TILE, 2), torch.bfloat16), ((0,), torch.bfloat16)
    scales = ((tiles, _up(inputs, GROUP[kind]), TILE), torch.bfloat16)
    if kind == "int8":
        return ((tiles, steps, TILE, 4), torch.int8), scales
    return ((tiles, 4 * steps, TILE, 4), torch.uint8), scales


def pack_matrix(
    weight_OI: torch.Tensor, weight_format: WeightFormat, *, activations: Activations = "int8"
) -> PackedMatrix:
    """`weight_OI` (rows are outputs), each number rounded to the nearest that the format has.

    int8: the largest weight of an output and group of 128 inputs becomes ±127. int4: the largest of a group
    of 32 becomes −8. Raises `ValueError` unless the matrix has two dimensions.
    """
    if weight_OI.dim() != 2:
        raise ValueError(f"a weight of shape {tuple(weight_OI.shape)}: expected (outputs, inputs)")
    outputs, inputs = weight_OI.shape
    packed_shapes(weight_format, outputs=outputs, inputs=inputs)
    # N outputs and K inputs, both filled up
    padding = (0, -inputs % _TOGETHER[weight_format], 0, -outputs % TILE)
    weight_NK = fn.pad(weight_OI.detach().float(), padding)
    if weight_format in _FLOAT_DTYPE:
        data, scales = weight_NK.to(_FLOAT_DTYPE[weight_format]), torch.empty(0, dtype=torch.bfloat16)
    else:
        data, scale_NG = (_round_int8 if weight_format == "int8" else _round_int4)(weight_NK)
        scales = scale_NG.unflatten(0, (-1, TILE)).transpose(1, 2).contiguous()
    return PackedMatrix(weight_format, outputs, inputs, _interleave(data, weight_format), scales, activations)


def unpack_matrix(matrix: PackedMatrix) -> torch.Tensor:
    """The fp32 matrix (outputs, inputs) that the kernels multiply by."""
    m = matrix
    if m.format == "float32":
        weight_NK = m.data.transpose(1, 2).flatten(0, 1)
    elif m.format == "bfloat16":
        weight_NK = m.data.float().permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    else:
        code = m.data if m.format == "int8" else _nibbles(m.data)
        code_NK = code.permute(0, 2, 1, 3).flatten(2).flatten(0, 1).float()
        scale_NG = m.scales.float().transpose(1, 2).flatten(0, 1)
        scale_NK = scale_NG.repeat_interleave(GROUP[m.format], dim=1)[:, : code_NK.shape[1]]
        weight_NK = code_NK * scale_NK
    return weight_NK[: m.outputs, : m.inputs].contiguous()


def stack_matrices(parts: Sequence[PackedMatrix]) -> PackedMatrix:
    """One matrix with the tiles of all `parts`, which must be alike and, but for the last, of whole tiles."""
    first = parts[0]
    if any(p.outputs % TILE for p in parts[:-1]):
        raise ValueError(f"matrices of {first.outputs} outputs do not stack: no multiple of {TILE}")
    data = torch.cat([p.data for p in parts])
    scales = torch.cat([p.scales for p in parts])
    outputs = sum(p.outputs for p in parts)
    return PackedMatrix(first.format, outputs, first.inputs, data, scales, first.activations)


def _round_int8(weight_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = weight_NK.shape[1]
    group_NGX = fn.pad(weight_NK, (0, -inputs % GROUP["int8"])).unflatten(1, (-1, GROUP["int8"]))
    scale_NG = (group_NGX.abs().amax(-1) / 127).bfloat16()
    code_NGX = (group_NGX * _inverse(scale_NG)).round_().clamp_(-127, 127)
    return code_NGX.flatten(1)[:, :inputs].to(torch.int8), scale_NG


def _round_int4(weight_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    group_NGX = weight_NK.unflatten(1, (-1, GROUP["int4"]))
    largest_NG1 = group_NGX.gather(2, group_NGX.abs().argmax(2, keepdim=True))
    scale_NG = (largest_NG1.squeeze(2) / -_INT4_ZERO).bfloat16()
    code_NGX = (group_NGX * _inverse(scale_NG)).round_().add_(_INT4_ZERO).clamp_(0, 15)
    return code_NGX.flatten(1).to(torch.uint8), scale_NG


def _inverse(scale_NG: torch.Tensor) -> torch.Tensor:
    """1 / scale, 0 where all weights are 0."""
    scale_NG1 = scale_NG.float().unsqueeze(2)
    return torch.where(scale_NG1 == 0, 0.0, 1 / scale_NG1)


def _interleave(code_NK: torch.Tensor, weight_format: WeightFormat) -> torch.Tensor:
    tile_XYK: torch.Tensor = code_NK.unflatten(0, (-1, TILE))
    if weight_format == "float32":
        return tile_XYK.transpose(1, 2).contiguous()
    if weight_format == "int4":
        half_XYJ2 = tile_XYK.unflatten(2, (-1, 2, 4))
        tile_XYK = (half_XYJ2[..., 0, :] | half_XYJ2[..., 1, :] << 4).flatten(2)
    together = 2 if weight_format == "bfloat16" else 4
    steps_XSYI: torch.Tensor = tile_XYK.unflatten(2, (-1, together)).transpose(1, 2)
    return steps_XSYI.contiguous()


def _nibbles(data: torch.Tensor) -> torch.Tensor:
    """(tiles, steps, 16, 4) bytes to (tiles, 2 · steps, 16, 4) integers around 0."""
    both = torch.stack([data & 15, data >> 4], dim=2).flatten(1, 2)
    return both.to(torch.int8) - _INT4_ZERO


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple)
