"""What adapters add: changes of projections, and experts with changes of their own. Each token has another
adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle

import torch

from bench.kernel_case import BEYOND_CACHES, Case, Work
from bench.kernel_products import expert_bytes, expert_operations, expert_stacks, experts_used
from inference.models.config import ModelConfig
from moe_ops.grouped_mlp import PackedExperts
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

Shapes = Iterable[tuple[str, int, int]]


def lora_cases(config: ModelConfig, weights: WeightFormat, tokens: Sequence[int]) -> Iterator[Case]:
    """Both operations with so many tokens."""
    for count in tokens:
        yield _add(config, count)
    stacks = expert_stacks(config, weights)
    for count in tokens:
        yield _experts(config, stacks, count)


def _add(config: ModelConfig, tokens: int) -> Case:
    """`q_proj` and `kv_a_proj_with_mqa`, which share their input; each run is another layer's."""
    hidden, first = config.hidden_size, config.num_attention_heads * config.qk_head_dim
    widths = first, config.kv_lora_rank + config.qk_rope_head_dim
    numbers = RANK * (2 * hidden + sum(widths))  # of one token's factors
    layers = max(2, -(-BEYOND_CACHES // (tokens * numbers * _FACTOR_BYTES)))
    shapes = [
        (f"{layer}.{place}", width, hidden) for layer in range(layers) for place, width in enumerate(widths)
    ]
    banks = [_bank(shapes) for _ in range(tokens)]
    batch = _batch(banks)
    parts: list[Parts] = [((f"{layer}.0", 0), (f"{layer}.1", first)) for layer in range(layers)]
    for bank in banks:
        for one in parts:
            bank.parts_table(one)  # made once in an adapter's life
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


def _experts(config: ModelConfig, stacks: Sequence[PackedExperts], tokens: int) -> Case:
    """Each run is another layer's, and its tokens choose other experts."""
    hidden, width, shared = config.hidden_size, config.moe_intermediate_size, config.n_shared_experts
    names = [ExpertNames(f"{layer}", config.n_routed_experts, shared) for layer in range(len(stacks))]
    shapes = [shape for layer in names for shape in _expert_shapes(layer, hidden, width)]
    batch = _batch([_bank(shapes) for _ in range(tokens)])
    for bank in batch.banks:
        for layer in names:
            bank.experts_table(layer, experts=stacks[0].experts, width=width)  # made once, too
    top_k = config.num_experts_per_tok
    chosen = [torch.rand(tokens, config.n_routed_experts).topk(top_k).indices for _ in range(_CHOICES)]
    x_TD, weights_TK = torch.randn(tokens, hidden), torch.rand(tokens, top_k)

    def changed(operation: Callable[..., torch.Tensor]) -> Work:
        out_TD, choices = torch.zeros(tokens, hidden), cycle(chosen)
        layers = cycle(list(zip(stacks, names, strict=True)))

        def work() -> tuple[torch.Tensor, ...]:
            experts, layer = next(layers)
            operation(
                out_TD, x_TD, experts=experts, weights_TK=weights_TK, experts_TK=next(choices),
                batch=batch, names=layer,
            )  # fmt: skip
            return (out_TD,)

        return work

    changes = tokens * (top_k + shared) * 3 * RANK * (hidden + width)  # numbers of all factors met
    return Case(
        f"grouped MLP with LoRA, {tokens} adapters of rank {RANK}",
        changed(lora_mlp_),
        changed(cpu.lora_mlp_),
        read=experts_used(chosen, shared) * expert_bytes(stacks[0]) + changes * _FACTOR_BYTES,
        operations=2 * changes,
        products=tokens * expert_operations(config),
        weights=stacks[0].format,
        peer_name="torch, unpacking",
    )


def _expert_shapes(names: ExpertNames, hidden: int, width: int) -> Iterator[tuple[str, int, int]]:
    """Modules of a layer's experts, with outputs and inputs; the shared ones are one."""
    modules = [(f"{names.prefix}.experts.{number}", width) for number in range(names.routed)]
    modules += [(f"{names.prefix}.shared_experts", names.shared * width)] if names.shared else []
    for module, wide in modules:
        yield f"{module}.gate_proj", wide, hidden
        yield f"{module}.up_proj", wide, hidden
        yield f"{module}.down_proj", hidden, wide


def _batch(banks: Sequence[LoraBank]) -> LoraBatch:
    batch = LoraBatch.build(banks)
    if batch is None:
        raise ValueError("no tokens, no adapters")
    return batch


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
