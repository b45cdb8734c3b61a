"""Random weights of a checkpoint, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from inference.models.fp8 import SCALE_SUFFIX, Fp8Blocks

Shape = tuple[int, ...]

_FP8_MAX = 448.0  # the greatest number of e4m3
_KEPT = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight", "eh_proj.weight")  # never FP8


@dataclass(frozen=True, slots=True)
class RandomTensors:
    """Draws from `generator`; matrices of projections become FP8 when `fp8` is given."""

    generator: torch.Generator
    dtype: torch.dtype
    scale: float
    fp8: Fp8Blocks | None

    def headers(self, shapes: Mapping[str, Shape]) -> dict[str, tuple[torch.dtype, Shape]]:
        """Types and shapes of what `tensors` gives."""
        found: dict[str, tuple[torch.dtype, Shape]] = {}
        for name, shape in shapes.items():
            if self.fp8 is not None and _is_projection(name, shape):
                found[name] = torch.float8_e4m3fn, shape
                found[name + SCALE_SUFFIX] = torch.float32, self.fp8.scale_shape(shape)
            else:
                found[name] = torch.float32 if _is_bias(name) else self.dtype, shape
        return found

    def tensors(self, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors of `shapes` in their order, factors behind their matrices."""
        for name, shape in shapes.items():
            value = self._draw(name, shape)
            if self.fp8 is not None and _is_projection(name, shape):
                weight, factors = _quantised(value, self.fp8)
                yield name, weight
                yield name + SCALE_SUFFIX, factors
            else:
                yield name, value if _is_bias(name) else value.to(self.dtype)

    def _draw(self, name: str, shape: Shape) -> torch.Tensor:
        noise = torch.randn(shape, generator=self.generator)
        if _is_bias(name):
            return noise.mul_(0.1)
        if len(shape) == 1:
            return noise.mul_(0.1).add_(1)
        spread = 1.0 if name.endswith("embed_tokens.weight") else shape[-1] ** -0.5
        return noise.mul_(spread * self.scale)


def _is_bias(name: str) -> bool:
    return name.endswith("e_score_correction_bias")


def _is_projection(name: str, shape: Shape) -> bool:
    return len(shape) == 2 and not name.endswith(_KEPT)


def _quantised(weight: torch.Tensor, blocks: Fp8Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest e4m3 numbers, each block scaled so that its greatest is the format's greatest."""
    factors = torch.empty(blocks.scale_shape(tuple(weight.shape)))
    result = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    for row, strip in enumerate(weight.split(blocks.rows)):
        for column, block in enumerate(strip.split(blocks.columns, dim=1)):
            factors[row, column] = block.abs().max() / _FP8_MAX
            rows = slice(row * blocks.rows, row * blocks.rows + len(strip))
            columns = slice(column * blocks.columns, column * blocks.columns + block.shape[1])
            result[rows, columns] = (block / factors[row, column]).to(torch.float8_e4m3fn)
    return result, factors
