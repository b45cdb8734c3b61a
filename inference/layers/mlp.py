"""The gated MLP of dense layers."""

from __future__ import annotations

import torch

from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.lora import ExpertNames


class GatedMlp:
    """`down(silu(gate x) · up x)`: one expert that every token uses. `name` is its module's."""

    def __init__(self, experts: PackedExperts, forms: Forms, *, name: str = "") -> None:
        self.experts = experts
        self.forms = forms
        self._names = ExpertNames(name, routed=0, shared=experts.experts)

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor, batch: FlatBatch) -> None:
        """Add the result for `x_TD`, the tokens of `batch`, to `out_TD` in place."""
        experts_add_(
            out_TD,
            x_TD,
            batch=batch,
            names=self._names,
            experts=self.experts,
            weights_TK=x_TD.new_empty(len(x_TD), 0),
            experts_TK=torch.empty(len(x_TD), 0, dtype=torch.int64, device=x_TD.device),
            forms=self.forms,
        )


def experts_add_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    batch: FlatBatch,
    names: ExpertNames,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    forms: Forms,
) -> None:
    """Add the chosen and the shared experts' results, with the changes of adapters where there are any."""
    if batch.adapters is not None and batch.adapters.touches(names.prefix):
        forms.lora_mlp_(
            out_TD,
            x_TD,
            experts=experts,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
            batch=batch.adapters,
            names=names,
        )
        return
    forms.grouped_mlp_(
        out_TD,
        x_TD,
        experts=experts,
        weights_TK=weights_TK,
        experts_TK=experts_TK,
        shared=names.shared,
    )
