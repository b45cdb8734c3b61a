"""Watching which experts tokens choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_ops.grouped_mlp import PackedExperts


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Layer number `layer` of the routed ones computes `experts_TK` of `experts` for `x_TD`, and adds them up
    with `weights_TK`.
    """

    layer: int
    x_TD: torch.Tensor
    weights_TK: torch.Tensor
    experts_TK: torch.Tensor
    experts: PackedExperts


class RoutingObserver(Protocol):
    """Shown every routed layer's choice as it is made."""

    def see(self, choice: LayerChoice) -> None:
        """One layer has chosen."""


class GateMass:
    """Sums the weights that the tokens of each row give to every expert: (rows, layers, experts).

    With a table of experts by token also what they give to those that it names for them: (rows).
    """

    def __init__(
        self,
        row_T: torch.Tensor,
        *,
        rows: int,
        layers: int,
        experts: int,
        table_LTK: torch.Tensor | None = None,
    ) -> None:
        """`row_T` is each token's row; −1 for tokens that do not count."""
        self._seen_T = row_T >= 0
        self._row_N1 = row_T[self._seen_T].unsqueeze(1)
        self._table_LNK = None if table_LTK is None else table_LTK[:, self._seen_T]
        self.mass_RLE = torch.zeros(rows, layers, experts, dtype=torch.float64)
        self.in_table_R = torch.zeros(rows, dtype=torch.float64)

    def see(self, choice: LayerChoice) -> None:
        """Add this layer's choice. Layers beyond those counted are passed over."""
        layer = choice.layer
        if layer >= self.mass_RLE.shape[1]:
            return
        experts_NK = choice.experts_TK.cpu()[self._seen_T]
        weights_NK = choice.weights_TK.cpu()[self._seen_T].double()
        place = self._row_N1, torch.tensor(layer), experts_NK
        self.mass_RLE.index_put_(place, weights_NK, accumulate=True)
        if self._table_LNK is not None:
            inside_NK = named(experts_NK, self._table_LNK[layer])
            self.in_table_R.index_add_(0, self._row_N1.squeeze(1), (weights_NK * inside_NK).sum(1))


def named(experts_TK: torch.Tensor, table_TK: torch.Tensor) -> torch.Tensor:
    """Which of each token's experts its line of a table names."""
    return (experts_TK[:, :, None] == table_TK[:, None, :]).any(-1)
