"""Small operations on each token, and the choice of the next ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from bench.kernel_case import Case, Work, turns
from inference.models.config import ModelConfig
from inference.models.deepseek_build import router_spec
from moe_ops import sample
from moe_ops.rms_norm import cpu as norm_cpu
from moe_ops.rms_norm import rms_norm
from moe_ops.router import reference as router_reference
from moe_ops.router import route
from moe_ops.sample import cpu as sample_cpu

# temperature, top_p, min_p, top_k
_DRAWS = {
    "greedy": (0.0, 1.0, 0.0, 0.0),
    "temperature 0.6": (0.6, 1.0, 0.0, 0.0),
    "temperature 0.6, top_p 0.95": (0.6, 0.95, 0.0, 0.0),
    "temperature 1, top_k 40": (1.0, 1.0, 0.0, 40.0),
}
_SPREAD = 4.0  # of logits: as unequal as a trained model's


def token_cases(config: ModelConfig, *, tokens: Sequence[int], batches: Sequence[int]) -> Iterator[Case]:
    """Norm and router with so many tokens, sampling with so many sequences."""
    for count in tokens:
        yield _norm(config, count)
    for count in tokens:
        yield _router(config, count)
    for batch in batches:
        for name, limits in _DRAWS.items():
            yield _sampling(config, f"sampling, {name}, {batch} sequences, in cache", batch, limits)


def _norm(config: ModelConfig, tokens: int) -> Case:
    x_TD, weight_D = torch.randn(tokens, config.hidden_size), torch.ones(config.hidden_size)
    return Case(
        f"RMSNorm, {tokens} tokens, in cache",
        lambda: (rms_norm(x_TD, weight_D, config.rms_norm_eps),),
        lambda: (norm_cpu.rms_norm(x_TD, weight_D, config.rms_norm_eps),),
        cached=2 * x_TD.nbytes,
        operations=4 * x_TD.numel(),
    )


def _router(config: ModelConfig, tokens: int) -> Case:
    spec, hidden, experts = router_spec(config), config.hidden_size, config.n_routed_experts
    x_TD, weight_ED = torch.randn(tokens, hidden), torch.randn(experts, hidden) / hidden**0.5
    bias_E = torch.randn(experts) / 10 if config.topk_method == "noaux_tc" else None

    def routed(operation: Callable[..., tuple[torch.Tensor, ...]]) -> Work:
        weights = turns(weight_ED.clone, weight_ED.nbytes)
        return lambda: operation(x_TD, next(weights), bias_E, spec)

    return Case(
        f"router, {tokens} tokens",
        routed(route),
        routed(router_reference.route),
        read=weight_ED.nbytes,
        cached=x_TD.nbytes,
        operations=2 * x_TD.numel() * experts,
    )


def _sampling(config: ModelConfig, name: str, batch: int, limits: tuple[float, ...]) -> Case:
    """Every logit is read once; its exponential counts as one multiplication and addition."""
    logits_SV = torch.randn(batch, config.vocab_size) * _SPREAD
    limits_S5 = torch.cat([torch.tensor([limits] * batch), torch.rand(batch, 1)], dim=1)
    return Case(
        name,
        lambda: (sample.choose(logits_SV, limits_S5),),
        lambda: (sample_cpu.choose(logits_SV, limits_S5),),
        cached=logits_SV.nbytes,
        operations=2 * logits_SV.numel(),
    )
