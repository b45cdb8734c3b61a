"""Tensor names and shapes of a published DeepSeek-V2 or V3 checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from inference.models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


class Trunk(Protocol):
    """The sizes that every decoder has."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def tie_word_embeddings(self) -> bool: ...


def expected_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of the main model."""
    return dict(expected_tensors(config, mtp=False))


def expected_tensors(config: ModelConfig, *, mtp: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the main model and, with `mtp`, of the first prediction module where there is one.

    One after the other: a wrong configuration may name more than there is memory for.
    """
    yield from trunk_tensors(config)
    for layer in range(config.num_hidden_layers):
        yield from _layer_tensors(config, layer)
    if mtp and config.num_nextn_predict_layers:
        yield from _mtp_tensors(config)


def trunk_tensors(config: Trunk) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What every decoder has outside its attention and MLPs: embedding, head and all norms before them."""
    hidden = config.hidden_size
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        yield f"model.layers.{layer}.input_layernorm.weight", (hidden,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (hidden,)


def ignored_prefixes(config: ModelConfig) -> tuple[str, ...]:
    """Tensors that may be there and are not used: prediction modules after the last layer, the tied head, and
    the rotary tables that old files carry.
    """
    first = config.num_hidden_layers
    modules = range(first, first + max(1, config.num_nextn_predict_layers))
    ignored = [f"model.layers.{layer}." for layer in modules]
    ignored += [f"model.layers.{layer}.self_attn.rotary_emb." for layer in range(first)]
    if config.tie_word_embeddings:
        ignored.append("lm_head.weight")
    return tuple(ignored)


def _mtp_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The layer after the last, without the copies of embedding and head that V3 publishes with it."""
    hidden, prefix = config.hidden_size, f"model.layers.{config.num_hidden_layers}"
    for norm in ("input_layernorm", "post_attention_layernorm", "enorm", "hnorm", "shared_head.norm"):
        yield f"{prefix}.{norm}.weight", (hidden,)
    yield from _layer_tensors(config, config.num_hidden_layers)
    yield f"{prefix}.eh_proj.weight", (hidden, 2 * hidden)


def _layer_tensors(config: ModelConfig, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, prefix = config.hidden_size, f"model.layers.{layer}"
    yield from _attention_shapes(config, f"{prefix}.self_attn").items()
    if config.is_moe_layer(layer):
        yield from _moe_tensors(config, f"{prefix}.mlp")
    else:
        yield from mlp_shapes(hidden, config.intermediate_size, f"{prefix}.mlp").items()


def _attention_shapes(config: ModelConfig, prefix: str) -> Shapes:
    hidden, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    shapes: Shapes = {
        f"{prefix}.kv_a_proj_with_mqa.weight": (latent + config.qk_rope_head_dim, hidden),
        f"{prefix}.kv_a_layernorm.weight": (latent,),
        f"{prefix}.kv_b_proj.weight": (heads * (config.qk_nope_head_dim + config.v_head_dim), latent),
        f"{prefix}.o_proj.weight": (hidden, heads * config.v_head_dim),
    }
    if config.q_lora_rank is None:
        shapes[f"{prefix}.q_proj.weight"] = (heads * config.qk_head_dim, hidden)
    else:
        shapes[f"{prefix}.q_a_proj.weight"] = (config.q_lora_rank, hidden)
        shapes[f"{prefix}.q_a_layernorm.weight"] = (config.q_lora_rank,)
        shapes[f"{prefix}.q_b_proj.weight"] = (heads * config.qk_head_dim, config.q_lora_rank)
    return shapes


def _moe_tensors(config: ModelConfig, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    yield f"{prefix}.gate.weight", (config.n_routed_experts, hidden)
    if config.topk_method == "noaux_tc":
        yield f"{prefix}.gate.e_score_correction_bias", (config.n_routed_experts,)
    for expert in range(config.n_routed_experts):
        yield from mlp_shapes(hidden, width, f"{prefix}.experts.{expert}").items()
    if config.n_shared_experts:
        yield from mlp_shapes(hidden, width * config.n_shared_experts, f"{prefix}.shared_experts").items()


def mlp_shapes(hidden: int, width: int, prefix: str) -> Shapes:
    """The three matrices of the gated MLP `prefix`."""
    return {
        f"{prefix}.gate_proj.weight": (width, hidden),
        f"{prefix}.up_proj.weight": (width, hidden),
        f"{prefix}.down_proj.weight": (hidden, width),
    }
