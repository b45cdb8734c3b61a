"""The definitions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as fn

from moe_ops.grouped_mlp.packed import with_shared
from moe_ops.grouped_mlp.packing import PackedExperts, one_expert, unpack_experts
from moe_ops.linear.packing import unpack_matrix
from moe_ops.linear.reference import round_activations
from moe_ops.lora.bank import LoraBank, LowRank
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames, Parts

Product = Callable[[torch.Tensor, LowRank], torch.Tensor]
Matrices = Callable[[PackedExperts, int], tuple[torch.Tensor, torch.Tensor]]


def low_rank(x_NI: torch.Tensor, change: LowRank) -> torch.Tensor:
    """`B (A x)`."""
    return x_NI @ unpack_matrix(change.a).t() @ unpack_matrix(change.b).t()


def matrices(experts: PackedExperts, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`(gate_up_JD, down_DI)` of one expert."""
    gate_up_1JD, down_1DI = unpack_experts(one_expert(experts, expert))
    return gate_up_1JD[0], down_1DI[0]


def lora_add_(
    out_TO: torch.Tensor, x_TI: torch.Tensor, *, batch: LoraBatch, parts: Parts, product: Product = low_rank
) -> torch.Tensor:
    """Add `B (A x)` of each token's bank to its row of `out_TO`, module by module at the columns that `parts`
    says, and return it. Modules that a bank does not change are left out.
    """
    for number, bank in enumerate(batch.banks):
        token_N = torch.where(batch.bank_T == number)[0]
        for module, column in parts:
            if change := bank.modules.get(module):
                columns = slice(column, column + change.b.outputs)
                out_TO[token_N, columns] += product(x_TI[token_N], change)
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
    matrices: Matrices = matrices,
    product: Product = low_rank,
) -> torch.Tensor:
    """Add the experts' results as `packed_mlp_` does, each token's under its own bank, and return `out_TD`.

    Changes meet activations as they are, before and after those are rounded for the experts' own products
    (`rounds`: as the experts say unless given). `matrices` gives an expert's own, `product` is of a change.
    """
    if rounds is None:
        rounds = experts.format in ("int8", "int4") and experts.gate_up.activations == "int8"
    weights_TK, experts_TK = with_shared(weights_TK, experts_TK, experts=experts.experts, shared=names.shared)
    for expert in sorted(set(experts_TK.flatten().tolist())):
        token_M, slot_M = torch.where(experts_TK == expert)
        mlp = _Expert(*matrices(experts, expert), *names.module(expert), rounds=rounds, product=product)
        for number in batch.bank_T[token_M].unique().tolist():
            mine_M = batch.bank_T[token_M] == number
            token_N, slot_N = token_M[mine_M], slot_M[mine_M]
            y_ND = mlp(x_TD[token_N], batch.banks[number] if number >= 0 else None)
            out_TD.index_add_(0, token_N, (y_ND * weights_TK[token_N, slot_N, None]).to(out_TD.dtype))
    return out_TD


class _Expert:
    """One expert of a stack, under any bank."""

    def __init__(
        self,
        gate_up_JD: torch.Tensor,
        down_DI: torch.Tensor,
        module: str,
        part: int,
        *,
        rounds: bool,
        product: Product,
    ) -> None:
        """The expert is slice `part` of the width of `module`."""
        self._gate_up_JD, self._down_DI = gate_up_JD, down_DI
        self._round = round_activations if rounds else torch.Tensor.clone
        self._product = product
        self._module, width = module, down_DI.shape[1]
        self._slice = slice(part * width, (part + 1) * width)

    def __call__(self, x_ND: torch.Tensor, bank: LoraBank | None) -> torch.Tensor:
        gate_NI, up_NI = (self._round(x_ND) @ self._gate_up_JD.t()).chunk(2, dim=1)
        modules = {} if bank is None else bank.modules
        if change := modules.get(f"{self._module}.gate_proj"):
            gate_NI = gate_NI + self._product(x_ND, change)[:, self._slice]
        if change := modules.get(f"{self._module}.up_proj"):
            up_NI = up_NI + self._product(x_ND, change)[:, self._slice]
        act_NI = fn.silu(gate_NI) * up_NI
        y_ND = self._round(act_NI) @ self._down_DI.t()
        if change := modules.get(f"{self._module}.down_proj"):
            wide_NW = act_NI.new_zeros(len(act_NI), change.a.inputs)
            wide_NW[:, self._slice] = act_NI
            y_ND = y_ND + self._product(wide_NW, change)
        return y_ND
