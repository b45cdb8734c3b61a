"""FP8 checkpoints as DeepSeek publishes them: e4m3 weights, and an fp32 factor for every block of a matrix.

`<name>_scale_inv` multiplies, whatever its name suggests. A matrix whose sides are no multiples of the
block's has smaller blocks at its end, so the factors' shape is the matrix's divided by the block's and
rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.models.fields import Fields

SCALE_SUFFIX = "_scale_inv"


@dataclass(frozen=True, slots=True)
class Fp8Blocks:
    """Rows and columns that share a factor."""

    rows: int
    columns: int

    @classmethod
    def from_fields(cls, fields: Fields) -> Fp8Blocks | None:
        """What `quantization_config` says; None without one. Raises `ConfigError` for any other scheme."""
        section = fields.optional_section("quantization_config")
        if section is None:
            return None
        section.choice("quant_method", None, ("fp8",))
        section.choice("fmt", "e4m3", ("e4m3",))
        section.choice("activation_scheme", "dynamic", ("dynamic",))
        expected = "two sizes, rows and columns of a block"
        sides = section.integers("weight_block_size", expected)
        if len(sides) != 2 or min(sides) < 1:
            raise section.error("weight_block_size", expected)
        return cls(*sides)

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the factors of a matrix of `shape`."""
        return -(-shape[0] // self.rows), -(-shape[1] // self.columns)

    def expand(self, weight_OI: torch.Tensor, scale_BC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The matrix that `weight_OI` (e4m3) and its factors stand for, rounded once to `dtype`."""
        result = torch.empty(weight_OI.shape, dtype=dtype)
        column_BI = scale_BC.float().repeat_interleave(self.columns, dim=1)[:, : weight_OI.shape[1]]
        for block, factor_I in enumerate(column_BI):
            rows = slice(block * self.rows, (block + 1) * self.rows)
            result[rows] = weight_OI[rows].float() * factor_I
        return result
