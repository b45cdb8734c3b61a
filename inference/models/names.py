"""Tensor names and shapes of a published DeepSeek-V2 or V3 checkpoint."""

from __future__ import annotations

from inference.models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of the main model."""
    hidden = config.hidden_size
    shapes: Shapes = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        shapes |= _layer_shapes(config, layer)
    return shapes


def mtp_shapes(config: ModelConfig) -> Shapes:
    """The first prediction module, the layer after the last, without its copies of embedding and head."""
    hidden, layer = config.hidden_size, config.num_hidden_layers
    prefix = f"model.layers.{layer}"
    return _layer_shapes(config, layer) | {
        f"{prefix}.enorm.weight": (hidden,),
        f"{prefix}.hnorm.weight": (hidden,),
        f"{prefix}.eh_proj.weight": (hidden, 2 * hidden),
        f"{prefix}.shared_head.norm.weight": (hidden,),
    }


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


def _layer_shapes(config: ModelConfig, layer: int) -> Shapes:
    hidden, prefix = config.hidden_size, f"model.layers.{layer}"
    shapes: Shapes = {
        f"{prefix}.input_layernorm.weight": (hidden,),
        f"{prefix}.post_attention_layernorm.weight": (hidden,),
    }
    shapes |= _attention_shapes(config, f"{prefix}.self_attn")
    if config.is_moe_layer(layer):
        return shapes | _moe_shapes(config, f"{prefix}.mlp")
    return shapes | _mlp_shapes(hidden, config.intermediate_size, f"{prefix}.mlp")


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


def _moe_shapes(config: ModelConfig, prefix: str) -> Shapes:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    shapes: Shapes = {f"{prefix}.gate.weight": (config.n_routed_experts, hidden)}
    if config.topk_method == "noaux_tc":
        shapes[f"{prefix}.gate.e_score_correction_bias"] = (config.n_routed_experts,)
    for expert in range(config.n_routed_experts):
        shapes |= _mlp_shapes(hidden, width, f"{prefix}.experts.{expert}")
    if config.n_shared_experts:
        shapes |= _mlp_shapes(hidden, width * config.n_shared_experts, f"{prefix}.shared_experts")
    return shapes


def _mlp_shapes(hidden: int, width: int, prefix: str) -> Shapes:
    return {
        f"{prefix}.gate_proj.weight": (width, hidden),
        f"{prefix}.up_proj.weight": (width, hidden),
        f"{prefix}.down_proj.weight": (hidden, width),
    }
