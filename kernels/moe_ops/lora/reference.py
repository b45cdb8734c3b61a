"""The definitions."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as fn

from moe_ops.grouped_mlp.packed import with_shared
from moe_ops.grouped_mlp.packing import PackedExperts, unpack_experts
from moe_ops.linear.packing import TILE, PackedMatrix, unpack_matrix
from moe_ops.linear.reference import round_activations
from moe_ops.lora.bank import LoraBank, LowRank
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames, Parts


def lora_add_(out_TO: torch.Tensor, x_TI: torch.Tensor, *, batch: LoraBatch, parts: Parts) -> torch.Tensor:
    """Add `B (A x)` of each token's bank to its row of `out_TO`, module by module at the columns that `parts`
    says, and return it. Modules that a bank does not change are left out.
    """
    for number, bank in enumerate(batch.banks):
        token_N = torch.where(batch.bank_T == number)[0]
        for module, column in parts:
            if change := bank.modules.get(module):
                columns = slice(column, column + change.b.outputs)
                out_TO[token_N, columns] += _low_rank(x_TI[token_N], change)
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
    rounds: bool | None = None,
) -> torch.Tensor:
    """Add the experts' results as `packed_mlp_` does, each token's under its own bank, and return `out_TD`.

    Changes meet activations as they are, before and after those are rounded for the experts' own products
    (`rounds`: as the experts say unless given).
    """
    if rounds is None:
        rounds = experts.format in ("int8", "int4") and experts.gate_up.activations == "int8"
    weights_TK, experts_TK = with_shared(weights_TK, experts_TK, experts=experts.experts, shared=names.shared)
    for expert in sorted(set(experts_TK.flatten().tolist())):
        token_M, slot_M = torch.where(experts_TK == expert)
        mlp = _Expert(experts, expert, names, rounds)
        for number in batch.bank_T[token_M].unique().tolist():
            mine_M = batch.bank_T[token_M] == number
            token_N, slot_N = token_M[mine_M], slot_M[mine_M]
            y_ND = mlp(x_TD[token_N], batch.banks[number] if number >= 0 else None)
            out_TD.index_add_(0, token_N, y_ND * weights_TK[token_N, slot_N, None])
    return out_TD


class _Expert:
    """One expert of a stack, under any bank."""

    def __init__(self, experts: PackedExperts, expert: int, names: ExpertNames, rounds: bool) -> None:
        gate_up_EJD, down_EDI = unpack_experts(_alone(experts, expert))
        self._gate_up_JD, self._down_DI = gate_up_EJD[0], down_EDI[0]
        self._round = round_activations if rounds else torch.Tensor.clone
        self._module, part = names.module(expert)
        self._slice = slice(part * experts.width, (part + 1) * experts.width)

    def __call__(self, x_ND: torch.Tensor, bank: LoraBank | None) -> torch.Tensor:
        gate_NI, up_NI = (self._round(x_ND) @ self._gate_up_JD.t()).chunk(2, dim=1)
        modules = {} if bank is None else bank.modules
        if change := modules.get(f"{self._module}.gate_proj"):
            gate_NI = gate_NI + _low_rank(x_ND, change)[:, self._slice]
        if change := modules.get(f"{self._module}.up_proj"):
            up_NI = up_NI + _low_rank(x_ND, change)[:, self._slice]
        act_NI = fn.silu(gate_NI) * up_NI
        y_ND = self._round(act_NI) @ self._down_DI.t()
        if change := modules.get(f"{self._module}.down_proj"):
            wide_NW = act_NI.new_zeros(len(act_NI), change.a.inputs)
            wide_NW[:, self._slice] = act_NI
            y_ND = y_ND + _low_rank(wide_NW, change)
        return y_ND


def _low_rank(x_NI: torch.Tensor, change: LowRank) -> torch.Tensor:
    return x_NI @ unpack_matrix(change.a).t() @ unpack_matrix(change.b).t()


def _alone(experts: PackedExperts, expert: int) -> PackedExperts:
    """One expert as a stack; shares its memory."""
    gate_up, down = (_one(side, expert, experts.experts) for side in (experts.gate_up, experts.down))
    return PackedExperts(1, experts.hidden, experts.width, gate_up, down)


def _one(stack: PackedMatrix, expert: int, count: int) -> PackedMatrix:
    tiles = stack.data.shape[0] // count
    mine = slice(expert * tiles, (expert + 1) * tiles)
    scales = stack.scales[mine] if len(stack.scales) else stack.scales
    return replace(stack, outputs=tiles * TILE, data=stack.data[mine], scales=scales)
