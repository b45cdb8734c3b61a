"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.router import reference
from moe_ops.router.reference import RouterSpec


def route(
    x_TD: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    spec: RouterSpec,
    allowed_TE: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference, with ties given to the lowest expert; a token's choice does not depend on others."""
    if not native.available() or x_TD.dtype != torch.float32:
        return reference.route(x_TD, weight_ED, bias_E, spec, allowed_TE)
    chosen: tuple[torch.Tensor, torch.Tensor] = torch.ops.tokenworks.route(
        x_TD,
        weight_ED,
        bias_E,
        allowed_TE,
        spec.top_k,
        spec.groups,
        spec.groups_kept,
        spec.scoring == "sigmoid",
        spec.normalize,
        spec.scale,
    )
    return chosen
