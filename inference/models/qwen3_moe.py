"""Qwen3-MoE: grouped-query attention with normed heads, and softmax routing without shared experts.

The cache keeps a token's rotated keys and its values side by side. Published rotations turn the first half of
a head against the second; its numbers are put in pairs at load, so that positions turn as in all other models
here. Shape suffixes as in `inference.layers.batch`, and G key-value heads, X head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as fn

from inference.layers.batch import FlatBatch
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import Packing
from inference.layers.moe import MoeMlp
from inference.layers.rope import plain_rotations
from inference.models.checkpoint import Checkpoint
from inference.models.decoder import Decoder
from inference.models.fields import Fields
from inference.models.names import mlp_shapes, trunk_tensors
from inference.models.packed import PackedStore
from inference.models.reader import WeightReader
from moe_ops.latent_attention import PagedRows
from moe_ops.linear import PackedMatrix
from moe_ops.rope import rotate_pairs
from moe_ops.router import RouterSpec


@dataclass(frozen=True, slots=True)
class Qwen3MoeConfig:
    """Sizes under the names of `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    max_position_embeddings: int
    norm_topk_prob: bool
    tie_word_embeddings: bool
    rope_theta: float
    rms_norm_eps: float

    @classmethod
    def from_dict(cls, data: Mapping[str, object], source: str) -> Qwen3MoeConfig:
        """Parse a `config.json`. A `ConfigError` names what is missing or not computed here."""
        fields = Fields({"num_experts": data.get("num_local_experts"), **data}, source)
        rope = fields.optional_section("rope_scaling") or fields.optional_section("rope_parameters") or fields
        rope.choice("type", rope.choice("rope_type", "default", ("default",)), ("default",))
        fields.choice("hidden_act", "silu", ("silu",))
        names = [name for name, kind in cls.__annotations__.items() if kind == "int"]
        sizes = {name: fields.integer(name, None, at_least=1, at_most=1 << 20) for name in names}
        for refused, name, expected in (
            (fields.flag("attention_bias", False), "attention_bias", "false"),
            (fields.flag("use_sliding_window", False), "use_sliding_window", "false"),
            (fields.integers("mlp_only_layers"), "mlp_only_layers", "no dense layers"),
            (fields.integer("decoder_sparse_step", 1) != 1, "decoder_sparse_step", "1"),
            (sizes["num_attention_heads"] % sizes["num_key_value_heads"], "num_key_value_heads", "a divisor"),
            (sizes["num_experts"] < sizes["num_experts_per_tok"], "num_experts_per_tok", "fewer"),
            (sizes["head_dim"] % 2, "head_dim", "an even number"),
        ):
            if refused:
                raise fields.error(name, expected)
        return cls(
            **sizes,
            norm_topk_prob=fields.flag("norm_topk_prob", False),
            tie_word_embeddings=fields.flag("tie_word_embeddings", False),
            rope_theta=rope.number("rope_theta", fields.number("rope_theta", 10000.0, above=1.0), above=1.0),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, above=0.0),
        )


def tensors(config: Qwen3MoeConfig, _: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors; no checkpoint has a prediction module."""
    c, hidden = config, config.hidden_size
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    yield from trunk_tensors(c)
    for layer in (f"model.layers.{index}" for index in range(c.num_hidden_layers)):
        for part, width in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{layer}.self_attn.{part}_proj.weight", (width, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{layer}.self_attn.q_norm.weight", (c.head_dim,)
        yield f"{layer}.self_attn.k_norm.weight", (c.head_dim,)
        yield f"{layer}.mlp.gate.weight", (c.num_experts, hidden)
        for expert in range(c.num_experts):
            yield from mlp_shapes(hidden, c.moe_intermediate_size, f"{layer}.mlp.experts.{expert}").items()


class GroupedQueryAttention:
    """One layer: heads in groups that share a key-value head."""

    def __init__(self, reader: WeightReader, config: Qwen3MoeConfig, name: str) -> None:
        self._linear, self._norm = reader.packing.forms.linear, reader.packing.forms.rms_norm
        self._config = config
        self._qkv = reader.store.piece(f"{name}.qkv", PackedMatrix, lambda: _pack_qkv(reader, config, name))
        self._q_norm = _paired(reader.weight(f"{name}.q_norm"), config.head_dim)
        self._k_norm = _paired(reader.weight(f"{name}.k_norm"), config.head_dim)
        self._o = reader.matrix(f"{name}.o_proj")

    def add_to(
        self, out_TD: torch.Tensor, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch
    ) -> None:
        """Write keys and values of `x_TD` to the cache, attend, and add the result to `out_TD` in place."""
        c, keys = self._config, self._config.num_key_value_heads
        heads_TYX = self._linear(x_TD, self._qkv).unflatten(1, (-1, c.head_dim))
        q_THX, k_TGX, v_TGX = heads_TYX.split([c.num_attention_heads, keys, keys], dim=1)
        turn_T1R = batch.turn_TR.unsqueeze(1)
        q_THX = rotate_pairs(self._head_norm(q_THX, self._q_norm), turn_T1R)
        k_TGX = rotate_pairs(self._head_norm(k_TGX, self._k_norm), turn_T1R)
        fresh_TC = torch.cat([k_TGX, v_TGX], dim=1).flatten(1).to(cache_PZC.dtype)
        cache_PZC.flatten(0, 1).index_copy_(0, batch.slot_T, fresh_TC)
        seen_THX = torch.empty_like(q_THX)
        for first, rows in batch.all_rows(cache_PZC.shape[1]):
            self._attend(seen_THX[first:], q_THX[first:], cache_PZC, rows)
        self._linear(seen_THX.flatten(1), self._o, out=out_TD, add=True)

    def _head_norm(self, heads_TYX: torch.Tensor, weight_X: torch.Tensor) -> torch.Tensor:
        flat_YX = heads_TYX.reshape(-1, heads_TYX.shape[2])
        return self._norm(flat_YX, weight_X, self._config.rms_norm_eps).view(heads_TYX.shape)

    def _attend(
        self, seen_THX: torch.Tensor, q_THX: torch.Tensor, cache_PZC: torch.Tensor, rows: PagedRows
    ) -> None:
        for r in rows.rectangles(cache_PZC.shape[1]):
            context_BSC = cache_PZC[r.pages_BP].flatten(1, 2).to(q_THX.dtype)
            unwritten_BS = torch.arange(context_BSC.shape[1], device=q_THX.device) >= r.end_B.unsqueeze(1)
            context_BSC.masked_fill_(unwritten_BS.unsqueeze(2), 0.0)  # a weight of 0 would not stop a NaN
            keys_BGSX, values_BGSX = context_BSC.unflatten(2, (2, -1, q_THX.shape[2])).permute(2, 0, 3, 1, 4)
            q_BHNX, mask_B1NS = q_THX[r.token_BN].transpose(1, 2), r.mask_BNS.unsqueeze(1).to(q_THX.dtype)
            out_BHNX = fn.scaled_dot_product_attention(
                q_BHNX, keys_BGSX, values_BGSX, attn_mask=mask_B1NS, enable_gqa=True
            )
            seen_THX[r.token_X] = out_BHNX.transpose(1, 2).flatten(0, 1)[r.place_X]


def build(
    config: Qwen3MoeConfig, checkpoint: Checkpoint, packing: Packing, store: PackedStore, _: bool
) -> Decoder:
    """The model from its open checkpoint."""
    reader = WeightReader(checkpoint, packing, store)
    return Decoder(
        config=config,
        cached=2 * config.num_key_value_heads * config.head_dim,
        turn_XR=plain_rotations(config.head_dim, config.rope_theta, config.max_position_embeddings),
        embedding=reader.embedding(),
        layers=tuple(_layer(reader, config, index) for index in range(config.num_hidden_layers)),
        norm=reader.weight("model.norm"),
        head=reader.head(tied=config.tie_word_embeddings),
        packing=packing,
    )


def _layer(reader: WeightReader, config: Qwen3MoeConfig, index: int) -> DecoderLayer:
    name = f"model.layers.{index}"
    experts = [(f"{name}.mlp.experts.{expert}", 1) for expert in range(config.num_experts)]
    mlp = MoeMlp(
        router_ED=reader.weight(f"{name}.mlp.gate"),
        bias_E=None,
        spec=RouterSpec(config.num_experts_per_tok, 1, 1, "softmax", config.norm_topk_prob, 1.0),
        experts=reader.experts(f"{name}.mlp", experts),
        shared=0,
        forms=reader.packing.forms,
        name=f"{name}.mlp",
        layer=index,
    )
    return reader.layer(name, attention=GroupedQueryAttention(reader, config, f"{name}.self_attn"), mlp=mlp)


def _pack_qkv(reader: WeightReader, config: Qwen3MoeConfig, name: str) -> PackedMatrix:
    q, k, v = (reader.unpacked(f"{name}.{part}_proj") for part in "qkv")
    rows_NI = torch.cat([_paired(q, config.head_dim), _paired(k, config.head_dim), v])
    return reader.packing.pack(rows_NI)


def _paired(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Each head's first half and second half in turns."""
    return rows.view(-1, 2, head // 2, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)
