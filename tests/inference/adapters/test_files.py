from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.adapters.files import Adapter, AdapterError, adapter_read
from moe_ops.linear import unpack_matrix

Modules = Mapping[str, tuple[int, int]]
WriteAdapter = Callable[..., Path]

Q = "model.layers.0.self_attn.q_b_proj"
EXPERT = "model.layers.1.mlp.experts.3.down_proj"


def read(folder: Path, modules: Modules, rank_max: int = 16) -> Adapter:
    return adapter_read(folder, modules=modules, rank_max=rank_max)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_b_proj": 16}}, 4.0),
        ({"alpha_pattern": {"o_proj": 16}}, 2.0),
        ({"alpha_pattern": {"q_b": 16, r"layers\.0\..*q_b_proj": 4, "q_b_proj": 32}}, 1.0),
        ({"alpha_pattern": {"^q_b_proj": 16, "^model.layers.\\d+.self_attn.q_b_proj": 12}}, 3.0),
        ({"alpha_pattern": {"o_proj|q_b_proj": 20.0}, "use_rslora": True}, 10.0),
    ],
)
def test_both_factors_are_read_and_the_scale_is_part_of_the_second(
    write_adapter: WriteAdapter, modules: Modules, config: dict[str, object], scale: float
) -> None:
    folder = write_adapter([Q, EXPERT], config=config)
    raw = load_file(folder / "adapter_model.safetensors")
    change = read(folder, modules).modules[Q]
    assert torch.equal(unpack_matrix(change.a), raw[f"base_model.model.{Q}.lora_A.weight"])
    torch.testing.assert_close(unpack_matrix(change.b), raw[f"base_model.model.{Q}.lora_B.weight"] * scale)


def test_ranks_may_differ_by_pattern(write_adapter: WriteAdapter, modules: Modules) -> None:
    outputs, inputs = modules[Q]
    wide = {
        f"base_model.model.{Q}.lora_A.weight": torch.ones(8, inputs),
        f"base_model.model.{Q}.lora_B.weight": torch.ones(outputs, 8),
    }
    folder = write_adapter([Q, EXPERT], tensors=wide, config={"rank_pattern": {"self_attn.q_b_proj": 8}})
    adapter = read(folder, modules)
    assert unpack_matrix(adapter.modules[Q].a).shape == (8, inputs)
    assert torch.equal(unpack_matrix(adapter.modules[Q].b), torch.ones(outputs, 8))  # alpha 8 / rank 8


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"peft_type": "IA3"}, {}, "peft_type"),
        ({"bias": "all"}, {}, "bias"),
        ({"use_dora": True}, {}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({"use_rslora": "false"}, {}, "use_rslora"),
        ({"rank_pattern": {"(a+)+": 4}}, {}, "rank_pattern: .*regular expressions"),
        ({"alpha_pattern": {"(": 4}}, {}, "alpha_pattern: .*no regular expression"),
        ({"r": 0}, {}, "r: expected"),
        ({"r": True}, {}, "r: expected"),
        ({"lora_alpha": "x"}, {}, "lora_alpha"),
        ({"lora_alpha": 10**400}, {}, "lora_alpha"),
        ({"lora_alpha": math.inf}, {}, "lora_alpha"),
        ({"rank_pattern": {"q": 0}}, {}, "rank_pattern"),
        ({"rank_pattern": {"q_b_proj": math.inf}}, {}, "rank_pattern"),
        ({"rank_pattern": {"q_b_proj": 4.5}}, {}, "rank_pattern"),
        ({"alpha_pattern": {"q_b_proj": math.inf}}, {}, "alpha_pattern"),
        ({"lora_alpha": 1e9}, {f"base_model.model.{Q}.lora_B.weight": torch.full((96, 4), 1e35)}, "finite"),
        ({}, {f"base_model.model.{Q}.lora_A.default.weight": torch.ones(4, 32)}, "there twice"),
        ({}, {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 64)}, "no projection"),
        (
            {},
            {"base_model.model.model.layers.0.self_attn.kv_b_proj.lora_A.weight": torch.ones(4, 16)},
            "merge",
        ),
        ({}, {"base_model.model.model.layers.1.mlp.gate.lora_A.weight": torch.ones(4, 64)}, "router"),
        (
            {},
            {"base_model.model.model.layers.9.self_attn.q_b_proj.lora_A.weight": torch.ones(4, 32)},
            "no projection",
        ),
        ({}, {"something": torch.ones(2)}, "something is no LoRA factor"),
        ({}, {f"base_model.model.{Q}.lora_A.weight": None}, "one factor only"),
        ({}, {f"base_model.model.{Q}.lora_A.weight": torch.ones(4, 33)}, "has shape"),
        (
            {},
            {f"base_model.model.{Q}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8)},
            "unsupported type",
        ),
        ({}, {f"base_model.model.{Q}.lora_A.weight": torch.full((4, 32), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_is_named(
    write_adapter: WriteAdapter,
    modules: Modules,
    config: dict[str, object],
    tensors: dict[str, torch.Tensor | None],
    message: str,
) -> None:
    folder = write_adapter([Q], config=config, tensors=tensors)
    with pytest.raises(AdapterError, match=message):
        read(folder, modules)


def test_ranks_beyond_the_limit_are_refused(write_adapter: WriteAdapter, modules: Modules) -> None:
    with pytest.raises(AdapterError, match="at most 3"):
        read(write_adapter([Q]), modules, rank_max=3)


def test_an_empty_adapter_is_an_error(write_adapter: WriteAdapter, modules: Modules) -> None:
    with pytest.raises(AdapterError, match="no tensors"):
        read(write_adapter([]), modules)


def test_damaged_files_are_errors(write_adapter: WriteAdapter, modules: Modules) -> None:
    folder = write_adapter([Q])
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 4, 40, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        with pytest.raises(AdapterError, match="not readable"):
            read(folder, modules)
    weights.write_bytes(whole)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(AdapterError, match="not readable as JSON"):
        read(folder, modules)
    (folder / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(AdapterError, match="not readable as JSON"):
        read(folder, modules)
    (folder / "adapter_config.json").write_text(json.dumps([]))
    with pytest.raises(AdapterError, match="peft_type"):
        read(folder, modules)


def test_the_digest_changes_with_either_file(write_adapter: WriteAdapter, modules: Modules) -> None:
    folder = write_adapter([Q])
    first = read(folder, modules).digest
    config = folder / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    assert read(folder, modules).digest != first


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_adapter_written_by_peft_itself_is_read(tiny_dir: Path, tmp_path: Path, modules: Modules) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_dir, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_a_proj", "q_b_proj", "o_proj"], init_lora_weights=False
    )
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    adapter = read(tmp_path, modules)
    assert len(adapter.modules) == 9
    assert Q in adapter.modules
