"""Tile sizes: searched on a GPU, fixed in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl

Grid = Callable[[Mapping[str, Any]], tuple[int, ...]]


def interpreted() -> bool:
    """Whether kernels run as numpy programs: `TRITON_INTERPRET=1` was set when triton was imported."""
    return bool(triton.knobs.runtime.interpret)


def kernel(body: Callable[..., Any]) -> Any:
    """`triton.jit`, which carries no types."""
    return triton.jit(body)


def kernel_of(*varying: str) -> Callable[[Callable[..., Any]], Any]:
    """`kernel` with arguments that are other numbers in every step: no program of its own is made for those
    that are 1 or a multiple of 16.
    """
    return lambda body: triton.jit(body, do_not_specialize=list(varying))


class Tuned:
    """A kernel whose tile sizes are the fastest of `configs` for each new value of the `key` arguments.

    In the interpreter the first of `configs` counts: nothing can be timed there.
    """

    def __init__(self, function: Any, configs: Sequence[triton.Config], key: Sequence[str]) -> None:
        self._kernel = function if interpreted() else triton.autotune(list(configs), list(key))(function)
        self._fixed = configs[0].kwargs if interpreted() else {}

    def launch(self, grid: Grid, *tensors: Any, **settings: Any) -> None:
        """Run one program for each point of `grid`, which is made from the tile sizes."""
        self._kernel[grid](*tensors, **settings, **self._fixed)


def product_type(x: torch.Tensor) -> tl.dtype:
    """The type in which matrix products with `x` take their factors; sums are fp32 always.

    The interpreter multiplies bf16 as the integers it stores them in, so it gets fp32.
    """
    if interpreted() or x.dtype == torch.float32:
        return tl.float32
    return tl.float16 if x.dtype == torch.float16 else tl.bfloat16
