"""Configurations of the family are read as transformers reads them, and wrong ones refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import DeepseekV2Config, DeepseekV3Config

from inference.models.config import ConfigError, ModelConfig, YarnConfig
from inference.models.deepseek_build import router_spec
from inference.train.settings import nano_architecture

V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 163840,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def test_v3_is_read_whole() -> None:
    config = ModelConfig.from_dict(V3)
    assert (config.num_hidden_layers, config.first_k_dense_replace) == (61, 3)
    assert (config.scoring_func, config.topk_method) == ("sigmoid", "noaux_tc")
    assert config.qk_head_dim == 192
    assert config.rope_scaling == YarnConfig(40.0, 4096, 32.0, 1.0, 1.0, 1.0)
    assert config.eos_token_ids == (1,)
    assert not config.is_moe_layer(2)
    assert config.is_moe_layer(3)
    assert config.is_moe_layer(61)


def test_both_spellings_of_the_rotary_settings_are_equal() -> None:
    newer = {key: value for key, value in V3.items() if key not in ("rope_scaling", "rope_theta")}
    scaling = {key: value for key, value in V3["rope_scaling"].items() if key != "type"}
    newer["rope_parameters"] = {**scaling, "rope_type": "yarn", "rope_theta": 10000}
    assert ModelConfig.from_dict(newer) == ModelConfig.from_dict(V3)


@pytest.mark.parametrize("kind", [DeepseekV2Config, DeepseekV3Config])
def test_what_transformers_writes_is_read(kind: Any, tmp_path: Path) -> None:
    extra = {"n_group": 4, "topk_group": 2} if kind is DeepseekV3Config else {"topk_method": "greedy"}
    theirs = kind(
        hidden_size=64,
        num_attention_heads=4,
        n_routed_experts=16,
        num_experts_per_tok=4,
        first_k_dense_replace=1,
        q_lora_rank=None,
        rope_theta=5000.0,
        rope_scaling={**V3["rope_scaling"], "factor": 4},
        eos_token_id=[1, 7],
        **extra,
    )
    theirs.save_pretrained(tmp_path)
    config = ModelConfig.from_dir(tmp_path)
    assert config.hidden_size == 64
    assert config.q_lora_rank is None
    assert config.eos_token_ids == (1, 7)
    assert config.rope_theta == 5000.0
    assert config.rope_scaling is not None
    assert config.rope_scaling.factor == 4.0
    assert config.norm_topk_prob == theirs.norm_topk_prob
    assert config.num_nextn_predict_layers == getattr(theirs, "num_nextn_predict_layers", 0)


def test_v2_defaults_to_softmax_and_greedy() -> None:
    data = {key: value for key, value in V3.items() if key not in ("scoring_func", "topk_method")}
    data |= {"model_type": "deepseek_v2", "q_lora_rank": None, "norm_topk_prob": False}
    config = ModelConfig.from_dict(data)
    assert (config.scoring_func, config.topk_method) == ("softmax", "greedy")
    assert config.q_lora_rank is None


V2_GREEDY = {
    **V3,
    "model_type": "deepseek_v2",
    "topk_method": "greedy",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
}


@pytest.mark.parametrize(
    "groups", [{"n_group": 7}, {"n_group": 8, "topk_group": 9}, {"n_group": 64, "topk_group": 1}]
)
def test_greedy_routing_ignores_groups_whatever_they_say(groups: dict[str, int]) -> None:
    config = ModelConfig.from_dict({**V2_GREEDY, **groups})
    spec = router_spec(config)
    assert (spec.groups, spec.groups_kept, spec.top_k) == (1, 1, 8)
    with pytest.raises(ConfigError, match=r"n_group|topk_group|num_experts_per_tok"):
        ModelConfig.from_dict({**V2_GREEDY, **groups, "topk_method": "group_limited_greedy"})


def test_greedy_routing_takes_no_more_experts_than_there_are() -> None:
    with pytest.raises(ConfigError, match="num_experts_per_tok: expected at most the 256 experts there are"):
        ModelConfig.from_dict({**V2_GREEDY, "num_experts_per_tok": 257})


def test_sparse_attention_is_refused_by_its_name() -> None:
    """V3.2 has all fields of V3: read as one, it would run and be silently worse."""
    with pytest.raises(ConfigError, match=r"model_type: expected one of .*, found 'deepseek_v32'"):
        ModelConfig.from_dict({**V3, "model_type": "deepseek_v32", "index_topk": 2048, "index_n_heads": 64})


def test_plain_rotary_has_no_yarn() -> None:
    assert ModelConfig.from_dict({**V3, "rope_scaling": None}).rope_scaling is None


def test_nano_keeps_what_makes_it_a_v3() -> None:
    config = ModelConfig.from_dict(nano_architecture())
    assert config.q_lora_rank
    assert config.n_shared_experts == 1
    assert 1 < config.topk_group < config.n_group
    assert config.norm_topk_prob
    assert config.rope_scaling is not None
    assert config.rope_scaling.mscale_all_dim == 1.0
    assert config.num_nextn_predict_layers == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model_type": "llama"},
            "model_type: expected one of 'deepseek_v2', 'deepseek_v3', 'kimi_k2', found",
        ),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings: expected at most 1048576"),
        ({"model_type": "deepseek_v2"}, "routed_scaling_factor: expected 1 with norm_topk_prob"),
        ({"hidden_size": None}, "hidden_size: expected an integer of at least 1, found None"),
        ({"hidden_size": "7168"}, "hidden_size: expected an integer of at least 1, found '7168'"),
        ({"num_experts_per_tok": True}, "num_experts_per_tok"),
        ({"n_group": 7}, "n_group: expected a divisor of n_routed_experts = 256, found 7"),
        ({"topk_group": 9}, "topk_group: expected at most n_group = 8, found 9"),
        ({"num_experts_per_tok": 200}, "num_experts_per_tok: expected at most the 128 experts"),
        ({"n_group": 256, "topk_group": 9}, "at least two experts a group"),
        ({"qk_rope_head_dim": 63}, "qk_rope_head_dim: expected an even number"),
        ({"scoring_func": "softmax"}, "scoring_func: expected 'sigmoid' with topk_method 'noaux_tc'"),
        ({"hidden_act": "gelu"}, "hidden_act: expected one of 'silu'"),
        ({"attention_bias": True}, "attention_bias: expected false"),
        ({"rope_interleave": False}, "rope_interleave: expected true"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "config: rope_scaling: type: expected one of"),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "factor: expected a number greater than 0"),
        ({"rope_scaling": 4}, "rope_scaling: expected an object"),
        ({"eos_token_id": ["a"]}, "eos_token_id: expected a token id or a list of token ids"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob: expected true or false"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_dict({**V3, **change})
    assert words in str(caught.value)


def test_missing_fields_and_files_are_named(tmp_path: Path) -> None:
    data = {key: value for key, value in V3.items() if key != "kv_lora_rank"}
    with pytest.raises(ConfigError, match=r"kv_lora_rank: expected an integer of at least 1, found nothing"):
        ModelConfig.from_dict(data)
    with pytest.raises(ConfigError, match="no such file"):
        ModelConfig.from_dir(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        ModelConfig.from_dir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match="expected a JSON object, found list"):
        ModelConfig.from_dir(tmp_path)
