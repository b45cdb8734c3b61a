"""Multi-head latent attention over a paged cache of latents.

Rows of few new tokens are computed in absorbed form, where queries come to the latents; rows of many in
expanded form, where keys and values are made from latents once for all of them. Rotary parts stay in
interleaved pairs, in queries and cache alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from moe_ops.latent_attention import LatentHeads, pack_latent_heads
from moe_ops.linear import Activations, PackedMatrix, WeightFormat, pack_matrix
from moe_ops.lora import Parts

INNER_EPS = 1e-6  # the family's inner norms do not follow rms_norm_eps
_HEAD_FORMATS: dict[WeightFormat, WeightFormat] = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "int4": "int8",  # what queries and values pass through is small, and kept finer
}


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Head count and widths of one model's attention, and what its scores are multiplied by."""

    heads: int
    nope: int
    rotary: int
    value: int
    latent: int
    scale: float

    @property
    def query(self) -> int:
        """Numbers of one head's query."""
        return self.nope + self.rotary

    @property
    def cached(self) -> int:
        """Numbers cached per token and layer."""
        return self.latent + self.rotary


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """One layer's packed weights.

    `inner` is what the layer's input meets: `q_proj`, or `q_a_proj` where queries have a low rank, and below
    it the rows of `kv_a_proj_with_mqa`. `q_norm` and `q_b` are None without low-rank queries. `heads` is
    `kv_b_proj`.
    """

    inner: PackedMatrix
    q_norm: torch.Tensor | None
    q_b: PackedMatrix | None
    kv_norm: torch.Tensor
    heads: LatentHeads
    o: PackedMatrix

    @classmethod
    def pack(
        cls,
        *,
        q: torch.Tensor,
        q_norm: torch.Tensor | None,
        q_b: torch.Tensor | None,
        kv_a: torch.Tensor,
        kv_norm: torch.Tensor,
        kv_b: torch.Tensor,
        o: torch.Tensor,
        shape: AttentionShape,
        weight_format: WeightFormat,
        activations: Activations = "int8",
    ) -> AttentionWeights:
        """From tensors as published, rows being outputs; `q` is `q_proj` or `q_a_proj`."""
        kv_b_HUL = kv_b.view(shape.heads, shape.nope + shape.value, shape.latent)
        packed = partial(pack_matrix, weight_format=weight_format, activations=activations)
        return cls(
            inner=packed(torch.cat([q, kv_a])),
            q_norm=None if q_norm is None else q_norm.float(),
            q_b=None if q_b is None else packed(q_b),
            kv_norm=kv_norm.float(),
            heads=pack_latent_heads(
                kv_b_HUL,
                nope=shape.nope,
                weight_format=_HEAD_FORMATS[weight_format],
                activations=activations,
            ),
            o=packed(o),
        )

    def on(self, device: torch.device) -> AttentionWeights:
        """The same with its norms on `device`; matrices go there at first use."""
        q_norm = None if self.q_norm is None else self.q_norm.to(device)
        return replace(self, q_norm=q_norm, kv_norm=self.kv_norm.to(device))


class LatentAttention:
    """One layer. `name` is its module's."""

    def __init__(
        self, weights: AttentionWeights, shape: AttentionShape, forms: Forms, *, name: str = ""
    ) -> None:
        self._name = name
        self.weights = weights
        self.shape = shape
        self.forms = forms
        first = "q_proj" if weights.q_b is None else "q_a_proj"
        latent = weights.inner.outputs - shape.cached
        self._inner: Parts = ((f"{name}.{first}", 0), (f"{name}.kv_a_proj_with_mqa", latent))
        self._query: Parts = ((f"{name}.q_b_proj", 0),)
        self._out: Parts = ((f"{name}.o_proj", 0),)

    def add_to(
        self, out_TD: torch.Tensor, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch
    ) -> None:
        """Write the latents of `x_TD` to the cache, attend, and add the result to `out_TD` in place."""
        w, s = self.weights, self.shape
        inner_TX = self.forms.linear(x_TD, w.inner)
        self._change_(self._inner, inner_TX, x_TD, batch)
        q_TX, fresh_TC = inner_TX[:, : -s.cached], inner_TX[:, -s.cached :]
        q_THQ = self._queries(q_TX, batch)
        self.forms.latent_store_(
            fresh_TC,
            w.kv_norm,
            INNER_EPS,
            turn_TR=batch.turn_TR,
            slot_T=batch.slot_T,
            cache_PZC=cache_PZC,
            q_THQ=q_THQ,
        )
        attended_TV = self._attend(q_THQ, cache_PZC, batch)
        self.forms.linear(attended_TV, w.o, out=out_TD, add=True)
        self._change_(self._out, out_TD, attended_TV, batch)

    def _change_(self, parts: Parts, out_TO: torch.Tensor, x_TI: torch.Tensor, batch: FlatBatch) -> None:
        """Add what adapters change of the result of projections of one input."""
        if batch.adapters is not None and batch.adapters.touches(self._name):
            self.forms.lora_add_(out_TO, x_TI, batch=batch.adapters, parts=parts)

    def _queries(self, q_TX: torch.Tensor, batch: FlatBatch) -> torch.Tensor:
        """All heads' queries, from the rows of `inner` that are not the latent's."""
        w = self.weights
        if w.q_b is not None and w.q_norm is not None:
            low_TX = self.forms.rms_norm(q_TX, w.q_norm, INNER_EPS)
            q_TX = self.forms.linear(low_TX, w.q_b)
            self._change_(self._query, q_TX, low_TX, batch)
        return q_TX.view(len(q_TX), self.shape.heads, self.shape.query)

    def _attend(self, q_THQ: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch) -> torch.Tensor:
        """What the heads see, side by side: the input of `o_proj`."""
        w, s = self.weights, self.shape
        out_THV = q_THQ.new_empty(len(q_THQ), s.heads, s.value)
        if batch.short is not None:
            few = slice(0, batch.short.tokens)
            self.forms.latent_decode_(
                out_THV[few], q_THQ[few], cache_PZC, batch.short, heads=w.heads, scale=s.scale
            )
        for row in batch.long:
            many = slice(row.first, row.first + row.count)
            self.forms.latent_expand_(
                out_THV[many],
                q_THQ[many],
                cache_PZC,
                row.pages_P,
                row.start,
                heads=w.heads,
                scale=s.scale,
            )
        return out_THV.flatten(1)
