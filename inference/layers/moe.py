"""The mixture layer: router, routed experts, shared experts."""

from __future__ import annotations

import torch

from inference.layers.mlp import GatedMlp
from moe_ops.grouped_mlp import grouped_mlp_
from moe_ops.router import RouterSpec, route


class MoeMlp:
    """Routed experts in two stacked tensors, gate beside up; the shared ones are one MLP (None: there are
    none).
    """

    def __init__(
        self,
        *,
        router_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        spec: RouterSpec,
        gate_up_EDJ: torch.Tensor,
        down_EID: torch.Tensor,
        shared: GatedMlp | None,
    ) -> None:
        self._router_ED = router_ED
        self._bias_E = bias_E
        self._spec = spec
        self._gate_up_EDJ = gate_up_EDJ
        self._down_EID = down_EID
        self._shared = shared

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor) -> None:
        """Add the result for `x_TD` to `out_TD` in place."""
        weights_TK, experts_TK = route(x_TD, self._router_ED, self._bias_E, self._spec)
        if self._shared is not None:
            self._shared.add_to(out_TD, x_TD)
        grouped_mlp_(
            out_TD,
            x_TD,
            gate_up_EDJ=self._gate_up_EDJ,
            down_EID=self._down_EID,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
        )
