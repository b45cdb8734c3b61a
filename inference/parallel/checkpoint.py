"""Reading one rank's part of a checkpoint: bytes of the other parts are never touched."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.models.checkpoint import Checkpoint, CheckpointError
from inference.models.fp8 import SCALE_SUFFIX, Fp8Blocks
from inference.parallel.sharding import Cut, ShardPlan


class ShardedCheckpoint(Checkpoint):
    """As `Checkpoint`, but `read` gives the part that `plan` names."""

    def __init__(self, path: Path, plan: ShardPlan, *, fp8: Fp8Blocks | None = None) -> None:
        super().__init__(path, fp8=fp8)
        self._plan = plan

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """The rank's part of one tensor, converted to `dtype`.

        Raises `CheckpointError` as the whole does, and `ValueError` where the rank holds nothing.
        """
        if not self._plan.holds(name):
            raise ValueError(f"{name} belongs to another rank")
        cut = self._plan.cut(name, self._headers[name].shape)
        if cut is None:
            return super().read(name, dtype)
        if self._fp8 is None or not self._is_fp8(name):
            return self._part(name, cut).to(dtype)
        return self._fp8_part(name, cut, self._fp8, dtype)

    def _fp8_part(self, name: str, cut: Cut, blocks: Fp8Blocks, dtype: torch.dtype) -> torch.Tensor:
        """Whole blocks around the part, from which the part is taken."""
        side = blocks.rows if cut.dim == 0 else blocks.columns
        first, last = cut.start // side, -(-cut.stop // side)
        around = Cut(cut.dim, first * side, min(last * side, self._headers[name].shape[cut.dim]))
        scale = self._part(name + SCALE_SUFFIX, Cut(cut.dim, first, last))
        if not scale.isfinite().all():
            raise CheckpointError(f"{self._path}: {name}{SCALE_SUFFIX} holds factors that are not finite")
        whole = blocks.expand(self._part(name, around), scale, dtype)
        return whole.narrow(cut.dim, cut.start - around.start, cut.stop - cut.start).contiguous()

    def _part(self, name: str, cut: Cut) -> torch.Tensor:
        view = self._home[name].get_slice(name)
        rows = slice(cut.start, cut.stop)
        part: torch.Tensor = view[rows] if cut.dim == 0 else view[:, rows]
        return part
