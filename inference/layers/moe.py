"""The mixture layer: router, routed experts, shared experts."""

from __future__ import annotations

import torch

from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from inference.layers.mlp import experts_add_
from inference.routing.choice import planned_route
from inference.routing.observer import LayerChoice
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.lora import ExpertNames
from moe_ops.router import RouterSpec


class MoeMlp:
    """Routed experts and, as the last `shared` ones of the same stack, those that every token uses.

    `name` is the module's, `layer` its number among the routed layers.
    """

    def __init__(
        self,
        *,
        router_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        spec: RouterSpec,
        experts: PackedExperts,
        shared: int,
        forms: Forms,
        name: str = "",
        layer: int = 0,
    ) -> None:
        self._router_ED = router_ED
        self.bias_E = bias_E
        self._spec = spec
        self.experts = experts
        self.shared = shared
        self._names = ExpertNames(name, routed=experts.experts - shared, shared=shared)
        self._layer = layer
        self.forms = forms

    @property
    def router(self) -> tuple[torch.Tensor, RouterSpec]:
        """The router's weight (experts, hidden) and how it chooses."""
        return self._router_ED, self._spec

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor, batch: FlatBatch) -> None:
        """Add the result for `x_TD`, the tokens of `batch`, to `out_TD` in place."""
        weights_TK, experts_TK = self._choose(x_TD, batch)
        if batch.observer is not None:
            choice = LayerChoice(self._layer, x_TD, weights_TK, experts_TK, self.experts)
            batch.observer.see(choice)
        experts_add_(
            out_TD,
            x_TD,
            batch=batch,
            names=self._names,
            experts=self.experts,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
            forms=self.forms,
        )

    def _choose(self, x_TD: torch.Tensor, batch: FlatBatch) -> tuple[torch.Tensor, torch.Tensor]:
        route = self.forms.route
        if batch.routing is None or self._layer >= batch.routing.layers:
            return route(x_TD, self._router_ED, self.bias_E, self._spec)
        return planned_route(
            x_TD,
            self._router_ED,
            self.bias_E,
            self._spec,
            plan=batch.routing,
            layer=self._layer,
            route=route,
        )
