"""The trained network as a Hugging Face folder that any DeepSeek-V3 loader reads.

Names are the family's own: experts one by one, the multi-token-prediction module as the layer after the
last. Its embedding and head are the main model's and are not written twice. Router biases stay fp32, all
else is bf16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

from inference.models.config import ModelConfig
from inference.train.network import Network
from inference.train.vocabulary import SpecialIds, tokenizer_write

_MTP_RENAMED = {"mtp.norm.": "shared_head.norm.", "mtp.block.": "", "mtp.": ""}
BYTES_MAX = 24_000_000


def checkpoint_tensors(network: Network, *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors under their checkpoint names."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        for public_name, part in _split_experts(_public_name(name, network.config.num_hidden_layers), value):
            kept = torch.float32 if public_name.endswith("e_score_correction_bias") else dtype
            tensors[public_name] = part.detach().to(kept).contiguous().clone()
    return tensors


def model_export(
    network: Network,
    tokenizer: Tokenizer,
    architecture: dict[str, object],
    *,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Write weights, configuration, tokenizer and generation settings; returns the weights' size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(checkpoint_tensors(network, dtype=dtype), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # the library makes files only their owner reads
    tokenizer_write(tokenizer, folder=folder, max_positions=network.config.max_position_embeddings)
    special = SpecialIds.of(tokenizer)
    generation: dict[str, object] = {
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "do_sample": False,
    }
    _write_json(folder / "config.json", {**architecture, "dtype": str(dtype).removeprefix("torch.")})
    _write_json(folder / "generation_config.json", generation)
    return weights.stat().st_size


def model_import(folder: Path) -> Network:
    """A network in fp32 with the weights of `folder`; a `KeyError` names a missing tensor."""
    network = Network(ModelConfig.from_dir(folder))
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    state = {}
    for name, value in network.state_dict().items():
        public = _public_name(name, network.config.num_hidden_layers)
        parts = [tensors[part_name] for part_name, _ in _split_experts(public, value)]
        state[name] = torch.stack(parts).view_as(value)
    network.load_state_dict(state)
    return network.eval()


def _public_name(name: str, layers: int) -> str:
    for inner, public in _MTP_RENAMED.items():
        if name.startswith(inner):
            return f"model.layers.{layers}.{public}{name.removeprefix(inner)}"
    return name if name.startswith("lm_head.") else f"model.{name}"


def _split_experts(name: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The stacked expert matrices one by one; other tensors as they are."""
    head, _, last = name.rpartition(".")
    if last == "gate_up_E2ID":
        for expert, (gate, up) in enumerate(value):
            yield f"{head}.experts.{expert}.gate_proj.weight", gate
            yield f"{head}.experts.{expert}.up_proj.weight", up
    elif last == "down_EDI":
        for expert, down in enumerate(value):
            yield f"{head}.experts.{expert}.down_proj.weight", down
    else:
        yield name, value


def _write_json(path: Path, data: dict[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
