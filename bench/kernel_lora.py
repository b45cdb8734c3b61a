"""What adapters add: changes of projections, and experts with changes of their own. Each token has another
adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle

import torch

from bench.kernel_case import BEYOND_CACHES, Case
from bench.kernel_products import expert_bytes, expert_count, expert_operations, experts_used
from inference.models.config import ModelConfig
from moe_ops.grouped_mlp import PackedExperts, pack_experts
from moe_ops.linear import WeightFormat, unpack_matrix
from moe_ops.lora import (
    ExpertNames,
    LoraBank,
    LoraBatch,
    LowRank,
    Parts,
    cpu,
    lora_add_,
    lora_mlp_,
    pack_low_rank,
)

RANK = 16
_CHOICES = 16
_FACTOR_BYTES = 2  # adapters come in bfloat16
_LAYERS_MOST = 64

Shapes = Iterable[tuple[str, int, int]]


def lora_cases(config: ModelConfig, weights: WeightFormat, tokens: Sequence[int]) -> Iterator[Case]:
    """Both operations with so many tokens."""
    for count in tokens:
        yield _add(config, count)
    experts = pack_experts(
        torch.randn(expert_count(config), 2 * config.moe_intermediate_size, config.hidden_size),
        torch.randn(expert_count(config), config.hidden_size, config.moe_intermediate_size),
        weights,
    )
    for count in tokens:
        yield _experts(config, experts, count)


def _add(config: ModelConfig, tokens: int) -> Case:
    """`q_proj` and `kv_a_proj_with_mqa`, which share their input; each run is another layer's."""
    hidden, first = config.hidden_size, config.num_attention_heads * config.qk_head_dim
    widths = first, config.kv_lora_rank + config.qk_rope_head_dim
    numbers = RANK * (2 * hidden + sum(widths))  # of one token's factors
    layers = min(max(2, -(-BEYOND_CACHES // (tokens * numbers * _FACTOR_BYTES))), _LAYERS_MOST)
    shapes = [
        (f"{layer}.{place}", width, hidden) for layer in range(layers) for place, width in enumerate(widths)
    ]
    banks = [_bank(shapes) for _ in range(tokens)]
    batch = LoraBatch.build(banks)
    if batch is None:
        raise ValueError("no tokens, no adapters")
    parts: list[Parts] = [((f"{layer}.0", 0), (f"{layer}.1", first)) for layer in range(layers)]
    x_TI = torch.randn(tokens, hidden)
    ours_TO, theirs_TO = torch.zeros(tokens, sum(widths)), torch.zeros(tokens, sum(widths))
    taken, plain = cycle(parts), cycle([_stacked(banks, one) for one in parts])

    def peer() -> tuple[torch.Tensor, ...]:
        for columns, a_TRI, b_TOR in next(plain):
            low_TR1 = torch.bmm(a_TRI, x_TI.unsqueeze(2))
            theirs_TO[:, columns] += torch.bmm(b_TOR, low_TR1).squeeze(2)
        return (theirs_TO,)

    return Case(
        f"LoRA of q and kv_a, {tokens} adapters of rank {RANK}",
        lambda: (lora_add_(ours_TO, x_TI, batch=batch, parts=next(taken)),),
        peer,
        read=tokens * numbers * _FACTOR_BYTES,
        operations=2 * tokens * numbers,
    )


def _experts(config: ModelConfig, experts: PackedExperts, tokens: int) -> Case:
    hidden, width, shared = config.hidden_size, config.moe_intermediate_size, config.n_shared_experts
    names = ExpertNames("mlp", config.n_routed_experts, shared)
    modules = [(f"mlp.experts.{number}", width) for number in range(config.n_routed_experts)]
    modules += [("mlp.shared_experts", shared * width)] if shared else []
    shapes = [
        (f"{module}.{side}", *((hidden, wide) if side == "down_proj" else (wide, hidden)))
        for module, wide in modules
        for side in ("gate_proj", "up_proj", "down_proj")
    ]
    batch = LoraBatch.build([_bank(shapes) for _ in range(tokens)])
    top_k = config.num_experts_per_tok
    chosen = [torch.rand(tokens, config.n_routed_experts).topk(top_k).indices for _ in range(_CHOICES)]
    x_TD, weights_TK = torch.randn(tokens, hidden), torch.rand(tokens, top_k)
    ours_TD, theirs_TD, ours, theirs = (
        torch.zeros(tokens, hidden), torch.zeros(tokens, hidden), cycle(chosen), cycle(chosen)
    )  # fmt: skip
    given = {"experts": experts, "weights_TK": weights_TK, "batch": batch, "names": names}
    changes = tokens * (top_k + shared) * 3 * RANK * (hidden + width)  # numbers of all factors met
    return Case(
        f"grouped MLP with LoRA, {tokens} adapters of rank {RANK}",
        lambda: (lora_mlp_(ours_TD, x_TD, experts_TK=next(ours), **given),),
        lambda: (cpu.lora_mlp_(theirs_TD, x_TD, experts_TK=next(theirs), **given),),
        read=experts_used(chosen, shared) * expert_bytes(experts) + changes * _FACTOR_BYTES,
        operations=2 * changes,
        products=tokens * expert_operations(config),
        weights=experts.format,
        peer_name="torch, unpacking",
    )


def _bank(shapes: Shapes) -> LoraBank:
    """Random changes of modules of so many outputs and inputs."""
    return LoraBank({name: _change(outputs, inputs) for name, outputs, inputs in shapes})


def _change(outputs: int, inputs: int) -> LowRank:
    a_RI, b_OR = torch.randn(RANK, inputs) / inputs**0.5, torch.randn(outputs, RANK) / RANK**0.5
    return pack_low_rank(a_RI.bfloat16().float(), b_OR.bfloat16().float())


def _stacked(banks: Sequence[LoraBank], parts: Parts) -> list[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Columns and both factors of all banks, for each part."""
    found = []
    for module, column in parts:
        a_TRI = torch.stack([unpack_matrix(bank.modules[module].a) for bank in banks])
        b_TOR = torch.stack([unpack_matrix(bank.modules[module].b) for bank in banks])
        found.append((slice(column, column + b_TOR.shape[1]), a_TRI, b_TOR))
    return found
