"""The gated MLP of dense layers and shared experts."""

from __future__ import annotations

import torch
import torch.nn.functional as fn


class GatedMlp:
    """`down(silu(gate x) · up x)`; gate and up are one product.

    Weights come as published, rows being outputs, and are kept the other way round: products of few rows are
    faster.
    """

    def __init__(self, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
        self._width = gate.shape[0]
        self._gate_up = torch.cat([gate, up]).t().contiguous()
        self._down = down.t().contiguous()

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor) -> None:
        """Add the result for `x_TD` to `out_TD` in place."""
        both_TJ = torch.mm(x_TD, self._gate_up)
        act_TI = fn.silu(both_TJ[:, : self._width]).mul_(both_TJ[:, self._width :])
        out_TD.addmm_(act_TI, self._down)
