"""Checkpoint folders with random weights, in the published layout: for tests and for timing without a
download.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inference.models.config import ModelConfig
from inference.models.names import Shapes, expected_shapes, mtp_shapes

_SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁end｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)

# The smallest model that has everything: dense and routed layers, groups, low-rank queries, YaRN.
TINY_V3: Mapping[str, object] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def random_checkpoint_write(
    *,
    path: Path,
    config: Mapping[str, object],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    scale: float = 1.0,
) -> None:
    """Write `config.json`, weights in `shards` files, and a tokenizer of single bytes.

    Weights are normal with variance `scale`² / inputs, so that activations keep their size through any depth;
    norms and correction biases differ from their neutral values, so that leaving one out shows.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(dict(config), indent=2), encoding="utf-8")
    architecture = ModelConfig.from_dict(config)
    shapes = expected_shapes(architecture)
    if architecture.num_nextn_predict_layers:
        shapes |= mtp_shapes(architecture)
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
        part = {tensor: shapes[tensor] for tensor in list(shapes)[shard::shards]}
        save_file(_tensors(part, generator, dtype, scale), path / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    _write_tokenizer(path)


def _tensors(
    shapes: Shapes, generator: torch.Generator, dtype: torch.dtype, scale: float
) -> dict[str, torch.Tensor]:
    return {name: _tensor(name, shape, generator, dtype, scale) for name, shape in shapes.items()}


def _tensor(
    name: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, scale: float
) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("e_score_correction_bias"):
        return noise * 0.1
    if name.endswith("norm.weight"):
        return (1 + noise * 0.1).to(dtype)
    spread = 1.0 if name.endswith("embed_tokens.weight") else shape[-1] ** -0.5
    return (noise * (spread * scale)).to(dtype)


def _write_tokenizer(path: Path) -> None:
    """Eight control tokens, then one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: id_ for id_, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _SPECIAL[0],
        "eos_token": _SPECIAL[1],
        "add_bos_token": True,
        "chat_template": _CHAT_TEMPLATE,
    }
    text = json.dumps(settings, ensure_ascii=False, indent=2)
    (path / "tokenizer_config.json").write_text(text, encoding="utf-8")
