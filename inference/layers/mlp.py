"""The gated MLP of dense layers."""

from __future__ import annotations

import torch

from inference.layers.forms import Forms
from moe_ops.grouped_mlp import PackedExperts


class GatedMlp:
    """`down(silu(gate x) · up x)`: one expert that every token uses."""

    def __init__(self, experts: PackedExperts, forms: Forms) -> None:
        self._experts = experts
        self._forms = forms

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor) -> None:
        """Add the result for `x_TD` to `out_TD` in place."""
        self._forms.grouped_mlp_(
            out_TD,
            x_TD,
            experts=self._experts,
            weights_TK=x_TD.new_empty(len(x_TD), 0),
            experts_TK=torch.empty(len(x_TD), 0, dtype=torch.int64),
            shared=self._experts.experts,
        )
