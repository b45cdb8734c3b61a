from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.models.checkpoint import CheckpointError
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

LogitsOf = Callable[..., list[torch.Tensor]]
Tensors = dict[str, torch.Tensor]

EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"
HEAD = "lm_head.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint_write(path=tmp_path, config=TINY_V3)
    return tmp_path


def edit(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_fault_is_named_in_one_error(folder: Path) -> None:
    def change(tensors: Tensors) -> None:
        del tensors[EXPERT]
        tensors["model.layers.1.mlp.experts.8.up_proj.weight"] = torch.zeros(1)
        tensors[NORM] = torch.zeros(63)
        tensors[HEAD] = torch.zeros(264, 64, dtype=torch.int32)

    edit(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert f"1 missing: {EXPERT}" in message
    assert "1 unexpected: model.layers.1.mlp.experts.8.up_proj.weight" in message
    assert f"1 misshapen: {NORM} (expected (64,), found (63,))" in message
    assert f"1 of an unsupported type: {HEAD} (I32)" in message


def test_long_lists_are_cut(folder: Path) -> None:
    edit(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "experts." in name])
    with pytest.raises(CheckpointError, match=r"54 missing: .* and 46 more"):
        load_model(folder)


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.3.eh_proj.weight",
        "model.layers.3.mlp.experts.0.up_proj.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ],
)
def test_prediction_modules_and_old_tables_are_ignored(folder: Path, extra: str) -> None:
    edit(folder, lambda tensors: tensors.update({extra: torch.zeros(1)}))
    load_model(folder)


def test_layers_beyond_the_prediction_modules_are_not(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({"model.layers.4.eh_proj.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"unexpected: model.layers.4.eh_proj.weight"):
        load_model(folder)


def test_shards_load_as_one(folder: Path, tiny_dir: Path, logits_of: LogitsOf) -> None:
    """`tiny_dir` has the same tensors in another order of creation: write them again in two files and
    compare.
    """
    tensors = load_file(folder / "model.safetensors")
    expected = logits_of(load_model(folder), [[9, 8, 30]])[0]
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, folder / "a.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, folder / "b.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: "ab"[place % 2] + ".safetensors" for place, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert logits_of(load_model(folder), [[9, 8, 30]])[0].equal(expected)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ('{"weight_map": {"a": "gone.safetensors"}}', "names gone.safetensors, which is not there"),
        ('{"weight_map": {"a": "../up.safetensors"}}', "is not the name of a file in this folder"),
        ('{"weight_map": {"a": 7}}', "is not the name of a file in this folder"),
        ('{"weight_map": []}', "expected an object `weight_map`"),
        ("{", "expected an object `weight_map`"),
    ],
)
def test_bad_indexes_are_explained(folder: Path, index: str, complaint: str) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=complaint):
        load_model(folder)


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    save_file({NORM: torch.zeros(64)}, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=f"{NORM} is in more than one file"):
        load_model(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 16, struct.pack("<Q", 1 << 60) + b"{}", b"\x02\0\0\0\0\0\0\0{]"]
)
def test_files_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not readable as safetensors|tensors do not fit"):
        load_model(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not readable as safetensors"):
        load_model(folder)


def test_an_empty_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*.safetensors file"):
        load_model(folder)
