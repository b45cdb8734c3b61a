"""Adapter folders as PEFT writes them, made by hand so that every part of them can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.adapters.targets import adapted_modules
from inference.models.config import ModelConfig

Modules = Mapping[str, tuple[int, int]]
WriteAdapter = Callable[..., Path]


@pytest.fixture(scope="session")
def modules(tiny_dir: Path) -> Modules:
    return adapted_modules(ModelConfig.from_dir(tiny_dir))


@pytest.fixture
def write_adapter(tmp_path: Path, modules: Modules) -> WriteAdapter:
    """`write_adapter(names, rank=4, seed=0, config={…}, tensors={…})` → folder; `tensors` replaces some."""

    def write(
        names: list[str],
        *,
        rank: int = 4,
        seed: int = 0,
        config: Mapping[str, object] | None = None,
        tensors: Mapping[str, torch.Tensor | None] | None = None,
    ) -> Path:
        folder = tmp_path / f"adapter-{seed}"
        folder.mkdir()
        generator = torch.Generator().manual_seed(seed)
        found: dict[str, torch.Tensor | None] = {}
        for name in names:
            outputs, inputs = modules[name]
            key = f"base_model.model.{name}"
            found[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            found[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) / rank**0.5
        found |= tensors or {}
        kept = {name: tensor for name, tensor in found.items() if tensor is not None}
        save_file(kept, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", **(config or {})}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        return folder

    return write
