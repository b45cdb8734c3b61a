"""Every setting that PEFT writes is neutral, read, or refused where it would change the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import LoraConfig

from inference.adapters.files import AdapterError
from inference.adapters.settings import HANDLED, NEUTRAL, ONLY, read_settings

WriteAdapter = Callable[..., Path]

Q = "model.layers.0.self_attn.q_b_proj"
CHANGING: dict[str, object] = {
    "bias": "lora_only",
    "use_dora": True,
    "use_qalora": True,
    "use_bdlora": {"target_modules_bd_a": ["q_b_proj"], "nblocks": 2},
    "fan_in_fan_out": True,
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "target_parameters": ["experts.down_proj"],
    "layer_replication": [[0, 2], [1, 3]],
    "alora_invocation_tokens": [5, 6],
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1e-4},
    "monteclora_config": {},
    "megatron_config": {"hidden_size": 8},
}


def test_every_setting_of_the_installed_peft_is_known_once() -> None:
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    known = [*HANDLED, *ONLY, *NEUTRAL]
    assert len(known) == len(set(known))
    assert fields == set(known)


def test_what_peft_writes_by_itself_is_taken(tmp_path: Path) -> None:
    LoraConfig(r=4, lora_alpha=8, target_modules=["q_b_proj"]).save_pretrained(str(tmp_path))
    read = read_settings(tmp_path / "adapter_config.json", [Q])
    assert (read.rank_of(Q), read.scale(Q, 4)) == (4, 2.0)


@pytest.mark.parametrize("name", sorted(ONLY))
def test_what_would_change_the_result_is_refused_by_name(write_adapter: WriteAdapter, name: str) -> None:
    folder = write_adapter([Q], config={name: CHANGING[name]})
    with pytest.raises(AdapterError, match=f"{name}: only"):
        read_settings(folder / "adapter_config.json", [Q])


@pytest.mark.parametrize("name", sorted(ONLY))
def test_and_taken_where_it_is_off(write_adapter: WriteAdapter, name: str) -> None:
    folder = write_adapter([Q], config=dict.fromkeys([name]))
    assert read_settings(folder / "adapter_config.json", [Q]).rank == 4


@pytest.mark.parametrize("way", ["pissa", "PiSSA_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"])
def test_starts_that_change_the_base_weights_are_refused(write_adapter: WriteAdapter, way: str) -> None:
    folder = write_adapter([Q], config={"init_lora_weights": way})
    with pytest.raises(AdapterError, match=r"init_lora_weights: .* changes the base weights"):
        read_settings(folder / "adapter_config.json", [Q])


@pytest.mark.parametrize("way", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_starts_that_leave_them_alone_are_taken(write_adapter: WriteAdapter, way: str | bool) -> None:
    folder = write_adapter([Q], config={"init_lora_weights": way})
    assert read_settings(folder / "adapter_config.json", [Q]).rank == 4


@pytest.mark.parametrize("value", ["on", 1, True, [1], {"a": 1}])
def test_an_unknown_setting_must_be_off(write_adapter: WriteAdapter, value: object) -> None:
    folder = write_adapter([Q], config={"use_newlora": value})
    with pytest.raises(AdapterError, match="use_newlora: not known"):
        read_settings(folder / "adapter_config.json", [Q])


@pytest.mark.parametrize("value", [None, False, [], {}])
def test_an_unknown_setting_that_is_off_is_taken(write_adapter: WriteAdapter, value: object) -> None:
    folder = write_adapter([Q], config={"use_newlora": value})
    assert read_settings(folder / "adapter_config.json", [Q]).rank == 4
