"""The C++ kernels, or plain torch where they are not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.grouped_mlp.packing import PackedExperts
from moe_ops.lora import cpu
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames, Parts


def lora_add_(out_TO: torch.Tensor, x_TI: torch.Tensor, *, batch: LoraBatch, parts: Parts) -> torch.Tensor:
    """Add `B (A x)` of each token's bank to its row of `out_TO`, module by module at the columns that `parts`
    says, and return it.

    fp32; rows of `x` and `out` may lie apart. A bank's factors are read once. A token's result does not
    depend on the others. Raises `RuntimeError` for shapes or types that do not fit.
    """
    if not native.available():
        return cpu.lora_add_(out_TO, x_TI, batch=batch, parts=parts)
    torch.ops.tokenworks.lora_add_(
        out_TO,
        x_TI,
        [bank.data_X for bank in batch.banks],
        [bank.parts_table(parts) for bank in batch.banks],
        batch.token_N,
        batch.first_S,
    )
    return out_TO


def lora_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    batch: LoraBatch,
    names: ExpertNames,
) -> torch.Tensor:
    """Add the experts' results as `packed_mlp_` does, each token's under its own bank, and return `out_TD`.

    A token without a bank, or whose bank changes none of these experts, has the very result of
    `packed_mlp_`, and no token's depends on the others. Raises `RuntimeError` for shapes or types that do not
    fit.
    """
    if not native.available():
        return cpu.lora_mlp_(
            out_TD,
            x_TD,
            experts=experts,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
            batch=batch,
            names=names,
        )
    gate_up, down, count, width = experts.gate_up, experts.down, experts.experts, experts.width
    places = [bank.experts_table(names, experts=count, width=width) for bank in batch.banks]
    torch.ops.tokenworks.lora_mlp_(
        out_TD,
        x_TD,
        gate_up.data,
        gate_up.scales,
        down.data,
        down.scales,
        weights_TK,
        experts_TK,
        gate_up.code,
        count,
        width,
        names.shared,
        [data_X for data_X, _ in places],
        [table for _, table in places],
        batch.bank_T,
    )
    return out_TD
