"""Products with packed weights: single matrices, and the gated MLPs of chosen experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle

import torch

from bench.kernel_case import BEYOND_CACHES, Case, matrix_copy, turns
from inference.models.config import ModelConfig
from moe_ops.grouped_mlp import PackedExperts, pack_experts, packed_mlp_
from moe_ops.grouped_mlp.packed import packed_mlp_torch_
from moe_ops.linear import PackedMatrix, WeightFormat, linear, pack_matrix, unpack_matrix

_HEAD_TOKENS = 64  # the head meets the last token of each sequence only
_CHOICES = 16
_STACKS = 4  # shared experts are read by every run: those of fewer stacks would stay in the caches


def matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of a layer's projections, and of the head."""
    heads, hidden, latent = config.num_attention_heads, config.hidden_size, config.kv_lora_rank
    return {
        "q_proj": (heads * config.qk_head_dim, hidden),
        "kv_a": (latent + config.qk_rope_head_dim, hidden),
        "kv_b": (heads * (config.qk_nope_head_dim + config.v_head_dim), latent),
        "o_proj": (hidden, heads * config.v_head_dim),
        "lm_head": (config.vocab_size, hidden),
    }


def product_cases(config: ModelConfig, weights: WeightFormat, tokens: Sequence[int]) -> Iterator[Case]:
    """All matrices and the experts, each with so many tokens."""
    for name, (outputs, inputs) in matrices(config).items():
        matrix = pack_matrix(torch.randn(outputs, inputs), weights)
        copies = turns(partial(matrix_copy, matrix), matrix.nbytes)
        plain_OI = unpack_matrix(matrix)
        plain = turns(plain_OI.clone, plain_OI.nbytes)
        for count in tokens:
            if name != "lm_head" or count <= _HEAD_TOKENS:
                yield _linear(f"{weights} {name}, {count} tokens", matrix, copies, plain, count)
    stacks = expert_stacks(config, weights)
    for count in tokens:
        yield _experts(config, stacks, count)


def _linear(
    name: str,
    matrix: PackedMatrix,
    copies: Iterator[PackedMatrix],
    plain: Iterator[torch.Tensor],
    tokens: int,
) -> Case:
    x_TI, out_TO = torch.randn(tokens, matrix.inputs), torch.empty(tokens, matrix.outputs)
    return Case(
        name,
        lambda: (linear(x_TI, next(copies), out=out_TO),),
        lambda: (x_TI @ next(plain).t(),),
        read=matrix.nbytes,
        products=2 * tokens * matrix.outputs * matrix.inputs,
        weights=matrix.format,
    )


def expert_stacks(config: ModelConfig, weights: WeightFormat) -> list[PackedExperts]:
    """The experts of some layers, together more than the caches hold."""
    count, hidden, width = expert_count(config), config.hidden_size, config.moe_intermediate_size
    experts = pack_experts(torch.randn(count, 2 * width, hidden), torch.randn(count, hidden, width), weights)
    layers = max(_STACKS, int(BEYOND_CACHES / (count * expert_bytes(experts))))
    others = [
        replace(experts, gate_up=matrix_copy(experts.gate_up), down=matrix_copy(experts.down))
        for _ in range(layers - 1)
    ]
    return [experts, *others]


def _experts(config: ModelConfig, stacks: Sequence[PackedExperts], tokens: int) -> Case:
    """Each run's tokens choose other experts at random."""
    first, shared, top_k = stacks[0], config.n_shared_experts, config.num_experts_per_tok
    x_TD, out_TD = torch.randn(tokens, config.hidden_size), torch.zeros(tokens, config.hidden_size)
    plain_TD, weights_TK = torch.zeros_like(out_TD), torch.rand(tokens, top_k)
    chosen = [torch.rand(tokens, config.n_routed_experts).topk(top_k).indices for _ in range(_CHOICES)]
    ours, theirs, taken = cycle(chosen), cycle(chosen), cycle(stacks)
    return Case(
        f"{first.format} grouped MLP, {tokens} tokens",
        lambda: (
            packed_mlp_(
                out_TD,
                x_TD,
                experts=next(taken),
                weights_TK=weights_TK,
                experts_TK=next(ours),
                shared=shared,
            ),
        ),
        lambda: (
            packed_mlp_torch_(
                plain_TD,
                x_TD,
                experts=first,
                weights_TK=weights_TK,
                experts_TK=next(theirs),
                shared=shared,
            ),
        ),
        read=experts_used(chosen, shared) * expert_bytes(first),
        products=expert_operations(config) * tokens,
        weights=first.format,
    )


def expert_count(config: ModelConfig) -> int:
    """Those of a layer's stack, the shared ones included."""
    return config.n_routed_experts + config.n_shared_experts


def expert_bytes(experts: PackedExperts) -> float:
    """Of one expert's weights."""
    return (experts.gate_up.nbytes + experts.down.nbytes) / experts.experts


def expert_operations(config: ModelConfig) -> float:
    """Of one token with its experts, the shared ones included."""
    used = config.num_experts_per_tok + config.n_shared_experts
    return 6 * used * config.hidden_size * config.moe_intermediate_size


def experts_used(chosen: Sequence[torch.Tensor], shared: int) -> float:
    """How many experts a run touches, on average."""
    touched = sum(int(experts_TK.unique().numel()) for experts_TK in chosen)
    return touched / len(chosen) + shared
