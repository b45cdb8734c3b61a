"""What published checkpoints of the family are like, and what other engines got wrong about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.layers.rope import softmax_scale
from inference.models.checkpoint import CheckpointError
from inference.models.config import ModelConfig
from inference.models.deepseek_build import router_spec
from inference.models.fields import ConfigError
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from moe_ops.router import route

LogitsOf = Callable[..., list[torch.Tensor]]
Tensors = dict[str, torch.Tensor]

# The parts of published config.json files that decide how the model computes.
YARN: dict[str, Any] = {
    "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
    "mscale": 0.707, "mscale_all_dim": 0.707,
}  # fmt: skip
COMMON: dict[str, Any] = {
    "hidden_act": "silu", "attention_bias": False, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_layer_freq": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000,
    "tie_word_embeddings": False, "pretraining_tp": 1, "seq_aux": True, "max_position_embeddings": 163840,
}  # fmt: skip
V2_LITE: dict[str, Any] = {
    **COMMON, "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "num_hidden_layers": 27,
    "first_k_dense_replace": 1, "num_attention_heads": 16, "q_lora_rank": None, "n_routed_experts": 64,
    "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "rope_scaling": YARN,
    "intermediate_size": 10944, "scoring_func": "softmax", "topk_method": "greedy", "n_group": 1,
    "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.0, "bos_token_id": 100000,
    "eos_token_id": 100001, "aux_loss_alpha": 0.001,
}  # fmt: skip
V2: dict[str, Any] = {
    **V2_LITE, "hidden_size": 5120, "num_hidden_layers": 60, "num_attention_heads": 128, "q_lora_rank": 1536,
    "n_routed_experts": 160, "moe_intermediate_size": 1536, "intermediate_size": 12288,
    "topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3, "routed_scaling_factor": 16.0,
    "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
}  # fmt: skip
V3: dict[str, Any] = {
    **COMMON, "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "num_hidden_layers": 61,
    "first_k_dense_replace": 3, "num_attention_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "ep_size": 1,
    "intermediate_size": 18432, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 8,
    "topk_group": 4, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1,
    "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, "bos_token_id": 0, "eos_token_id": 1,
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]
    },
}  # fmt: skip
KIMI_K2: dict[str, Any] = {
    **V3, "model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"], "vocab_size": 163840,
    "first_k_dense_replace": 1, "num_attention_heads": 64, "n_routed_experts": 384, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 2.827, "num_nextn_predict_layers": 0, "rope_theta": 50000.0,
    "max_position_embeddings": 131072, "bos_token_id": 163584, "eos_token_id": 163585,
    "rope_scaling": {**YARN, "factor": 32.0, "beta_fast": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("published", "scale"), [(V2_LITE, 0.114721), (V2, 0.135234), (V3, 0.135234), (KIMI_K2, 0.130861)]
)
def test_softmax_scales_have_yarns_correction_whatever_the_length(
    published: dict[str, Any], scale: float
) -> None:
    assert softmax_scale(ModelConfig.from_dict(published)) == pytest.approx(scale, abs=1e-6)


@pytest.mark.parametrize("published", [V2_LITE, V2, V3, KIMI_K2])
def test_head_dim_means_nothing_here(published: dict[str, Any]) -> None:
    """Converters write `head_dim: 64`, the rotary part's; scores are scaled by the whole head's width."""
    assert ModelConfig.from_dict({**published, "head_dim": 64}) == ModelConfig.from_dict(published)
    assert ModelConfig.from_dict(published).qk_head_dim == 192


def test_routing_of_each_family() -> None:
    specs = [router_spec(ModelConfig.from_dict(each)) for each in (V2_LITE, V2, V3, KIMI_K2)]
    assert [(spec.top_k, spec.groups, spec.groups_kept) for spec in specs] == [
        (6, 1, 1), (6, 8, 3), (8, 8, 4), (8, 1, 1)
    ]  # fmt: skip
    assert [spec.scoring for spec in specs] == ["softmax", "softmax", "sigmoid", "sigmoid"]
    assert [spec.normalize for spec in specs] == [False, False, True, True]
    assert [spec.scale for spec in specs] == [1.0, 16.0, 2.5, 2.827]


def test_dropped_groups_are_out_even_where_every_bias_is_negative() -> None:
    """A mask of 0 instead of −inf would prefer dropped experts to kept ones below 0."""
    spec = router_spec(ModelConfig.from_dict({**TINY_V3, "n_group": 4, "topk_group": 1}))
    bias_E = torch.tensor([-3.0, -3.0, -2.0, -2.0, -3.0, -3.0, -3.0, -3.0])
    _, experts = route(torch.randn(20, 64), torch.randn(8, 64), bias_E, spec)
    assert experts.sort().values.tolist() == [[2, 3]] * 20


def test_scores_that_underflow_give_zero_weights_not_nan() -> None:
    spec = router_spec(ModelConfig.from_dict(TINY_V3))
    weights, _ = route(torch.ones(1, 64), torch.full((8, 64), -10.0), torch.zeros(8), spec)
    assert weights.tolist() == [[0.0, 0.0]]


def test_factor_is_applied_once_with_and_without_normalisation() -> None:
    x, router, bias = torch.randn(9, 64), torch.randn(8, 64), torch.randn(8)
    found = {}
    for normalise in (True, False):
        config = ModelConfig.from_dict({**TINY_V3, "norm_topk_prob": normalise, "routed_scaling_factor": 2.5})
        found[normalise] = route(x, router, bias, router_spec(config))
    torch.testing.assert_close(found[True][0].sum(1), torch.full((9,), 2.5))
    scores = (x @ router.T).sigmoid().gather(1, found[False][1])
    torch.testing.assert_close(found[False][0], scores * 2.5)


KIMI_TINY = {
    **TINY_V3, "model_type": "kimi_k2", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827
}  # fmt: skip


def test_kimi_computes_as_a_v3(tmp_path: Path, logits_of: LogitsOf) -> None:
    found = []
    for place, model_type in enumerate(("kimi_k2", "deepseek_v3")):
        folder = tmp_path / str(place)
        random_checkpoint_write(path=folder, config={**KIMI_TINY, "model_type": model_type})
        found.append(logits_of(load_model(folder), [list(range(20, 100))])[0])
    assert found[0].equal(found[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_read(
    tiny_dir: Path, tmp_path: Path, dtype: torch.dtype, logits_of: LogitsOf
) -> None:
    """Half precision is widened before anything is computed: V2's states overflow in fp16."""
    random_checkpoint_write(path=tmp_path, config=TINY_V3)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: value.to(dtype) for name, value in tensors.items()}, tmp_path / "model.safetensors")
    found = logits_of(load_model(tmp_path), [[9, 8, 7, 100]])[0]
    tensors = {name: value.to(dtype).float() for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert found.equal(logits_of(load_model(tmp_path), [[9, 8, 7, 100]])[0])


FP8: Mapping[str, object] = {
    **TINY_V3,
    "hidden_size": 192,  # one block and a half
    "kv_lora_rank": 136,  # with the rotary part 144 rows, as V3's 576 are four blocks and a half
    "moe_intermediate_size": 130,
    "num_nextn_predict_layers": 1,
    "quantization_config": V3["quantization_config"],
}


@pytest.fixture(scope="module")
def fp8_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp8")
    random_checkpoint_write(path=path, config=FP8, shards=2)
    return path


def all_tensors(folder: Path) -> Tensors:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def rewritten(source: Path, target: Path, change: Callable[[Tensors], object], **settings: object) -> Path:
    tensors = all_tensors(source)
    change(tensors)
    config = json.loads((source / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps(config))
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def expand_all(tensors: Tensors) -> None:
    """The published rule, element by element: weight × factor of its block."""
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        scale, weight = tensors.pop(name), tensors[name.removesuffix("_scale_inv")].float()
        row, column = torch.arange(weight.shape[0]) // 128, torch.arange(weight.shape[1]) // 128
        tensors[name.removesuffix("_scale_inv")] = weight * scale[row][:, column]


def test_fp8_blocks_are_expanded_as_published(fp8_dir: Path, tmp_path: Path, logits_of: LogitsOf) -> None:
    stored = all_tensors(fp8_dir)
    scale = stored["model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv"]
    assert scale.shape == (2, 2)
    assert scale.dtype == torch.float32
    plain = rewritten(fp8_dir, tmp_path, expand_all, quantization_config=None)
    prompt = list(range(20, 110))
    found = logits_of(load_model(fp8_dir, mtp=True), [prompt])[0]
    assert found.equal(logits_of(load_model(plain), [prompt])[0])


@pytest.mark.parametrize(
    "kept", ["embed_tokens", "lm_head", "norm.weight", "mlp.gate.weight", "eh_proj", "correction_bias"]
)
def test_what_is_published_unquantised_stays_so(fp8_dir: Path, kept: str) -> None:
    named = {name: value for name, value in all_tensors(fp8_dir).items() if kept in name}
    assert named
    assert all(value.dtype == torch.float32 for value in named.values())


PROJECTION = "model.layers.1.self_attn.o_proj.weight"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop(PROJECTION + "_scale_inv"), f"1 missing: {PROJECTION}_scale_inv"),
        (
            lambda t: t.update({PROJECTION + "_scale_inv": torch.ones(1, 1)}),
            r"1 misshapen: .*o_proj.weight_scale_inv \(expected \(2, 1\), found \(1, 1\)\)",
        ),
        (
            lambda t: t.update({PROJECTION: torch.ones(192, 64)}),
            f"1 unexpected: {PROJECTION}_scale_inv",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(192).to(torch.float8_e4m3fn)}),
            r"1 of an unsupported type: model.norm.weight \(F8_E4M3\)",
        ),
        (
            lambda t: t.update({PROJECTION: torch.ones(192, 64).to(torch.float8_e5m2)}),
            r"1 of an unsupported type: .*o_proj.weight \(F8_E5M2\)",
        ),
        (
            lambda t: t.update({PROJECTION + "_scale_inv": torch.ones(2, 1).to(torch.float8_e4m3fn)}),
            r"1 of an unsupported type: .*o_proj.weight_scale_inv \(F8_E4M3\)",
        ),
        (lambda t: t[PROJECTION + "_scale_inv"].fill_(float("nan")), "holds factors that are not finite"),
    ],
)
def test_wrong_factors_are_named(
    fp8_dir: Path, tmp_path: Path, change: Callable[[Tensors], object], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        load_model(rewritten(fp8_dir, tmp_path, change))


def test_fp8_without_its_configuration_is_refused(fp8_dir: Path, tmp_path: Path) -> None:
    path = rewritten(fp8_dir, tmp_path, lambda _: None, quantization_config=None)
    with pytest.raises(CheckpointError, match=r"of an unsupported type: .*F8_E4M3"):
        load_model(path)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"quant_method": "awq"}, "quantization_config: quant_method: expected one of 'fp8', found 'awq'"),
        ({"quant_method": None}, "quant_method: expected one of 'fp8', found None"),
        ({"fmt": "e5m2"}, "fmt: expected one of 'e4m3'"),
        ({"activation_scheme": "static"}, "activation_scheme: expected one of 'dynamic'"),
        ({"weight_block_size": None}, "weight_block_size: expected two sizes"),
        ({"weight_block_size": [128]}, "weight_block_size: expected two sizes"),
        ({"weight_block_size": [128, 0]}, "weight_block_size: expected two sizes"),
    ],
)
def test_other_quantisations_are_refused(
    fp8_dir: Path, tmp_path: Path, settings: dict[str, object], complaint: str
) -> None:
    stored = {**V3["quantization_config"], **settings}
    path = rewritten(fp8_dir, tmp_path, lambda _: None, quantization_config=stored)
    with pytest.raises(ConfigError, match=complaint):
        load_model(path)
