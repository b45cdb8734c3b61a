"""The mixture layer: router, routed experts, shared experts."""

from __future__ import annotations

import torch

from inference.layers.forms import Forms
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.router import RouterSpec


class MoeMlp:
    """Routed experts and, as the last `shared` ones of the same stack, those that every token uses."""

    def __init__(
        self,
        *,
        router_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        spec: RouterSpec,
        experts: PackedExperts,
        shared: int,
        forms: Forms,
    ) -> None:
        self._router_ED = router_ED
        self._bias_E = bias_E
        self._spec = spec
        self._experts = experts
        self._shared = shared
        self._forms = forms

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor) -> None:
        """Add the result for `x_TD` to `out_TD` in place."""
        weights_TK, experts_TK = self._forms.route(x_TD, self._router_ED, self._bias_E, self._spec)
        self._forms.grouped_mlp_(
            out_TD,
            x_TD,
            experts=self._experts,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
            shared=self._shared,
        )
