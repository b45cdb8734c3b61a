"""Which form of each operation a model runs: C++ kernels, plain torch, or the definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_ops import grouped_mlp, latent_attention, latent_store, linear, lora, rms_norm, router
from moe_ops import native as native_ops
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.grouped_mlp.packed import packed_mlp_torch_
from moe_ops.latent_attention import LatentHeads, PagedRows
from moe_ops.latent_attention import cpu as latent_attention_cpu
from moe_ops.latent_attention import cpu_expand as latent_expand_cpu
from moe_ops.latent_attention import reference as latent_attention_reference
from moe_ops.latent_store import reference as latent_store_reference
from moe_ops.linear import Activations, PackedMatrix, WeightFormat
from moe_ops.linear import cpu as linear_cpu
from moe_ops.lora import ExpertNames, LoraBatch, Parts
from moe_ops.lora import cpu as lora_cpu
from moe_ops.rms_norm import cpu as rms_norm_cpu
from moe_ops.rms_norm import reference as rms_norm_reference
from moe_ops.router import RouterSpec
from moe_ops.router import reference as router_reference

CPU = torch.device("cpu")


class Linear(Protocol):
    """`x · Wᵀ`, to or added to `out`."""

    def __call__(
        self, x_TI: torch.Tensor, w: PackedMatrix, *, out: torch.Tensor | None = None, add: bool = False
    ) -> torch.Tensor: ...


class Logits(Protocol):
    """`x · Wᵀ` in fp32, whatever activations are."""

    def __call__(self, x_TI: torch.Tensor, w: PackedMatrix) -> torch.Tensor: ...


class GroupedMlp(Protocol):
    """Adds the chosen experts' and the last `shared` experts' results to `out_TD`."""

    def __call__(
        self,
        out_TD: torch.Tensor,
        x_TD: torch.Tensor,
        *,
        experts: PackedExperts,
        weights_TK: torch.Tensor,
        experts_TK: torch.Tensor,
        shared: int = 0,
    ) -> torch.Tensor: ...


class RmsNorm(Protocol):
    """`x / rms(x) · weight`."""

    def __call__(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor: ...


class Route(Protocol):
    """Weights and numbers of each token's experts, of those that are allowed."""

    def __call__(
        self,
        x_TD: torch.Tensor,
        weight_ED: torch.Tensor,
        bias_E: torch.Tensor | None,
        spec: RouterSpec,
        allowed_TE: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


class LatentStore(Protocol):
    """Norms latents, rotates keys and queries, writes the cache."""

    def __call__(
        self,
        fresh_TC: torch.Tensor,
        norm_L: torch.Tensor,
        eps: float,
        *,
        turn_TR: torch.Tensor,
        slot_T: torch.Tensor,
        cache_PZC: torch.Tensor,
        q_THQ: torch.Tensor,
    ) -> None: ...


class LatentDecode(Protocol):
    """Absorbed attention over the paged cache, from queries to values."""

    def __call__(
        self,
        out_THV: torch.Tensor,
        q_THQ: torch.Tensor,
        cache_PZC: torch.Tensor,
        rows: PagedRows,
        *,
        heads: LatentHeads,
        scale: float,
    ) -> None: ...


class LatentExpand(Protocol):
    """Attention of one row's many new tokens, at positions from `start` on, over the paged cache."""

    def __call__(
        self,
        out_THV: torch.Tensor,
        q_THQ: torch.Tensor,
        cache_PZC: torch.Tensor,
        pages_P: torch.Tensor,
        start: int,
        *,
        heads: LatentHeads,
        scale: float,
    ) -> None: ...


class LoraAdd(Protocol):
    """Adds the changes that adapters make of plain projections."""

    def __call__(
        self, out_TO: torch.Tensor, x_TI: torch.Tensor, *, batch: LoraBatch, parts: Parts
    ) -> torch.Tensor: ...


class LoraMlp(Protocol):
    """As `GroupedMlp`, each token's experts as its adapter changes them."""

    def __call__(
        self,
        out_TD: torch.Tensor,
        x_TD: torch.Tensor,
        *,
        experts: PackedExperts,
        weights_TK: torch.Tensor,
        experts_TK: torch.Tensor,
        batch: LoraBatch,
        names: ExpertNames,
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Forms:
    """One form of every operation of a decoder."""

    linear: Linear
    logits: Logits
    grouped_mlp_: GroupedMlp
    rms_norm: RmsNorm
    route: Route
    latent_store_: LatentStore
    latent_decode_: LatentDecode
    latent_expand_: LatentExpand
    lora_add_: LoraAdd
    lora_mlp_: LoraMlp


NATIVE = Forms(
    linear=linear.linear,
    logits=linear.linear,
    grouped_mlp_=grouped_mlp.packed_mlp_,
    rms_norm=rms_norm.rms_norm,
    route=router.route,
    latent_store_=latent_store.latent_store_,
    latent_decode_=latent_attention.latent_decode_,
    latent_expand_=latent_attention.latent_expand_,
    lora_add_=lora.lora_add_,
    lora_mlp_=lora.lora_mlp_,
)
"""The C++ kernels, where they are compiled."""

TORCH = Forms(
    linear=linear_cpu.linear,
    logits=linear_cpu.logits,
    grouped_mlp_=packed_mlp_torch_,
    rms_norm=rms_norm_cpu.rms_norm,
    route=router_reference.route,
    latent_store_=latent_store_reference.latent_store_,
    latent_decode_=latent_attention_cpu.latent_decode_,
    latent_expand_=latent_expand_cpu.latent_expand_,
    lora_add_=lora_cpu.lora_add_,
    lora_mlp_=lora_cpu.lora_mlp_,
)
"""Plain torch, fp32 activations."""

REFERENCE = Forms(
    linear=linear_cpu.linear,
    logits=linear_cpu.logits,
    grouped_mlp_=packed_mlp_torch_,
    rms_norm=rms_norm_reference.rms_norm,
    route=router_reference.route,
    latent_store_=latent_store_reference.latent_store_,
    latent_decode_=latent_attention_reference.latent_decode_,
    latent_expand_=latent_attention_reference.latent_expand_,
    lora_add_=lora_cpu.lora_add_,
    lora_mlp_=lora_cpu.lora_mlp_,
)
"""The definitions. One token a pass (`models/token_by_token.py`): any split of a batch is the same bits."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a model's weights are kept and its operations computed. `activations` is what integer weights
    meet; in between activations are of the type `computed`, on `device`.
    """

    weights: WeightFormat = "float32"
    forms: Forms = NATIVE
    activations: Activations = "int8"
    device: torch.device = CPU
    computed: torch.dtype = torch.float32

    @property
    def kept(self) -> torch.dtype:
        """The type of what is not packed by `weights`: embeddings and the latent cache."""
        return torch.float32 if self.weights == "float32" else torch.bfloat16

    def pack(self, weight_OI: torch.Tensor) -> PackedMatrix:
        """`weight_OI` (rows are outputs) as it is kept."""
        return linear.pack_matrix(weight_OI, self.weights, activations=self.activations)

    @property
    def key(self) -> str:
        """What packed weights depend on, in words: those of another key are not the same bytes."""
        return self.weights if self.activations == "int8" else f"{self.weights}, float activations"


def forms_for(*, native: bool | None = None, reference: bool = False) -> Forms:
    """The definitions, or C++ kernels where wanted (None: where compiled), else plain torch.

    Raises `ValueError` when kernels are wanted that are not compiled.
    """
    if reference:
        return REFERENCE
    if native and not native_ops.available():
        raise ValueError("CPU kernels are not compiled: python -m moe_ops.native.build")
    return TORCH if native is False or not native_ops.available() else NATIVE
