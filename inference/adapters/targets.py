"""Which of a model's projections an adapter may change, and the shapes its two factors must have there."""

from __future__ import annotations

import re

from inference.models.config import ModelConfig
from inference.models.names import expected_shapes

_ADAPTED = re.compile(
    r"^model\.layers\.\d+\.("
    r"self_attn\.(q_proj|q_a_proj|q_b_proj|kv_a_proj_with_mqa|o_proj)"
    r"|mlp\.((experts\.\d+|shared_experts)\.)?(gate|up|down)_proj)\.weight$"
)
_REASONS = {
    "kv_b_proj": "it is absorbed into queries and outputs; merge this adapter into the weights instead",
    "mlp.gate": "the router is frozen in serving",
}


def adapted_modules(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Every projection that can take an adapter, by module name, with its (outputs, inputs)."""
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in expected_shapes(config).items()
        if _ADAPTED.match(name)
    }


def refusal(module: str) -> str:
    """Why `module`, which is none of the adapted ones, can not be adapted."""
    for ending, reason in _REASONS.items():
        if module.endswith(ending):
            return f"{module} can not be adapted: {reason}"
    return f"{module} is no projection of this model that can be adapted"
