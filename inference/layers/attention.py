"""Multi-head latent attention in absorbed form: queries are taken into the latent space, where the cache
lives.

Rotary parts stay in interleaved pairs, in queries and cache alike, so that one complex product rotates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.layers.batch import AttentionGroup, FlatBatch
from moe_ops.latent_attention import latent_attention
from moe_ops.rms_norm import rms_norm

_INNER_EPS = 1e-6  # the family's inner norms do not follow rms_norm_eps
_FOLD_GROWTH_MAX = 1.5  # one product instead of two, as long as it reads at most this much more


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """One layer's tensors as published: rows are outputs."""

    q_a_norm: torch.Tensor | None
    q_a: torch.Tensor | None
    q_b: torch.Tensor  # the whole query projection when there is no q_a
    kv_a: torch.Tensor
    kv_a_norm: torch.Tensor
    kv_b: torch.Tensor
    o: torch.Tensor


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
    def cached(self) -> int:
        """Numbers cached per token and layer."""
        return self.latent + self.rotary


class LatentAttention:
    """One layer. Weights that meet with nothing in between are multiplied once, at load; rows are inputs
    then.
    """

    def __init__(self, weights: AttentionWeights, shape: AttentionShape) -> None:
        self._shape = s = shape
        kv_b_HUL = weights.kv_b.view(s.heads, s.nope + s.value, s.latent)
        key_HKL, value_HVL = kv_b_HUL[:, : s.nope], kv_b_HUL[:, s.nope :]
        self._q_norm = weights.q_a_norm
        self._kv_norm = weights.kv_a_norm
        query, self._key_HKL = _fold_query(weights.q_b, key_HKL, s)
        output, self._value_HLV = _fold_output(weights.o, value_HVL, s)
        self._out = output.t().contiguous()
        if weights.q_a is None:
            self._query = None
            self._inner = torch.cat([query, weights.kv_a]).t().contiguous()
        else:
            self._query = query.t().contiguous()
            self._inner = torch.cat([weights.q_a, weights.kv_a]).t().contiguous()

    def add_to(
        self, out_TD: torch.Tensor, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch
    ) -> None:
        """Write the latents of `x_TD` to the cache, attend, and add the result to `out_TD` in place."""
        s = self._shape
        inner_T = torch.mm(x_TD, self._inner)
        query_T, fresh_TC = inner_T[:, : -s.cached], inner_T[:, -s.cached :]
        if self._query is not None and self._q_norm is not None:
            query_T = torch.mm(rms_norm(query_T, self._q_norm, _INNER_EPS), self._query)
        self._store(fresh_TC, cache_PZC, batch)
        q_THC = self._absorb(query_T.view(len(x_TD), s.heads, -1), batch.turn_TR)
        latent_THL = self._attend(q_THC, cache_PZC, batch.groups)
        if self._value_HLV is not None:
            latent_THL = torch.bmm(latent_THL.transpose(0, 1), self._value_HLV).transpose(0, 1)
        out_TD.addmm_(latent_THL.flatten(1), self._out)

    def _store(self, fresh_TC: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch) -> None:
        latent = self._shape.latent
        latent_TL = rms_norm(fresh_TC[:, :latent], self._kv_norm, _INNER_EPS)
        rotary_TR = rotate_pairs(fresh_TC[:, latent:], batch.turn_TR)
        flat_XC = cache_PZC.flatten(0, 1)
        flat_XC.index_copy_(0, batch.slot_T, torch.cat([latent_TL, rotary_TR], dim=1))

    def _absorb(self, q_THX: torch.Tensor, turn_TR: torch.Tensor) -> torch.Tensor:
        """Queries against cache rows: X is C already when the weights are folded, else nope + rotary."""
        s = self._shape
        rotary_THR = rotate_pairs(q_THX[..., -s.rotary :], turn_TR.unsqueeze(1))
        if self._key_HKL is None:
            q_THX[..., -s.rotary :] = rotary_THR
            return q_THX
        q_HTL = torch.bmm(q_THX[..., : s.nope].transpose(0, 1), self._key_HKL)
        return torch.cat([q_HTL.transpose(0, 1), rotary_THR], dim=-1)

    def _attend(
        self, q_THC: torch.Tensor, cache_PZC: torch.Tensor, groups: tuple[AttentionGroup, ...]
    ) -> torch.Tensor:
        parts = [self._attend_group(q_THC, cache_PZC, group) for group in groups]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_group(
        self, q_THC: torch.Tensor, cache_PZC: torch.Tensor, group: AttentionGroup
    ) -> torch.Tensor:
        q_THC = q_THC.narrow(0, group.first, group.count)
        if group.token_BN is not None:
            q_THC = q_THC.index_select(0, group.token_BN)
        out_BNHL = latent_attention(
            q_THC.reshape(-1, group.new, *q_THC.shape[1:]),
            cache_PZC,
            group.pages_BP,
            group.mask_BNS,
            latent=self._shape.latent,
            scale=self._shape.scale,
        )
        out_THL = out_BNHL.flatten(0, 1)
        return out_THL if group.place_T is None else out_THL.index_select(0, group.place_T)


def rotate_pairs(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (0, 1), (2, 3), … of the last dimension by the complex numbers `turn`, broadcast."""
    if x.dtype != torch.float32 or any(step % 2 for step in (x.storage_offset(), *x.stride()[:-1])):
        x32 = x.float().contiguous().clone()  # complex numbers start at even places
    else:
        x32 = x
    pairs = torch.view_as_complex(x32.view(*x32.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def _fold_query(
    q_b: torch.Tensor, key_HKL: torch.Tensor, s: AttentionShape
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The query projection with the keys' absorbed into it, or both apart when that would read too much."""
    if not _folds(q_b.shape[1], s.heads, s.nope, s.latent, q_b.dtype):
        return q_b, key_HKL.contiguous()
    q_HQX = q_b.view(s.heads, s.nope + s.rotary, -1).double()
    absorbed_HLX = torch.einsum("hkx,hkl->hlx", q_HQX[:, : s.nope], key_HKL.double())
    return torch.cat([absorbed_HLX, q_HQX[:, s.nope :]], dim=1).flatten(0, 1).to(q_b.dtype), None


def _fold_output(
    o: torch.Tensor, value_HVL: torch.Tensor, s: AttentionShape
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The output projection with the values' absorbed into it, or both apart."""
    if not _folds(o.shape[0], s.heads, s.value, s.latent, o.dtype):
        return o, value_HVL.transpose(1, 2).contiguous()
    o_DHV = o.view(-1, s.heads, s.value).double()
    return torch.einsum("dhv,hvl->dhl", o_DHV, value_HVL.double()).flatten(1).to(o.dtype), None


def _folds(outer: int, heads: int, width: int, latent: int, dtype: torch.dtype) -> bool:
    """Whether outer × (heads · latent) is not much more to read than both factors; rounding to bf16 twice is
    kept.
    """
    apart = heads * width * (outer + latent)
    return dtype == torch.float32 and heads * latent * outer <= _FOLD_GROWTH_MAX * apart
