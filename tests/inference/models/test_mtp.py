"""The prediction module equals the trainer's network on nano, and in plain torch everywhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.engine import GenerationRequest, SamplingParams
from inference.engine.assembly import assemble
from inference.engine.sequence import Sequence
from inference.engine.step import Row
from inference.models import loader
from inference.models.checkpoint import CheckpointError
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.train.export import model_import
from inference.train.network import Network

NANO = Path(loader.__file__).parent / "nano"
WITH_MTP = {**TINY_V3, "num_nextn_predict_layers": 1}
PAGE_SIZE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mtp")
    random_checkpoint_write(path=path, config=WITH_MTP)
    return path


@torch.inference_mode()
def drafts(model: CausalModel, ids: Items[int], chunks: Items[int]) -> torch.Tensor:
    """The module's logits at every token of `ids` but the last, fed in `chunks`."""
    assert model.mtp is not None
    pages = tuple(range(-(-len(ids) // PAGE_SIZE), 0, -1))
    cache = model.new_cache(pages=len(pages) + 1, page_size=PAGE_SIZE)
    found, start = [], 0
    for length in chunks:
        end = start + length
        request = GenerationRequest("r", tuple(ids), SamplingParams(max_tokens=1))
        row = Row(Sequence(request, 0, 0), tuple(ids[start:end]), start, pages[: -(-end // PAGE_SIZE)])
        batch = assemble([row], page_size=PAGE_SIZE, turn_XR=model.turn_XR)
        batch = dataclasses.replace(batch, last_S=torch.arange(length))
        hidden_TD = model.forward(batch, cache).hidden_TD
        found.append(model.mtp.forward(batch, hidden_TD, torch.tensor(ids[start + 1 : end + 1]), cache))
        start = end
    assert start == len(ids) - 1
    return torch.cat(found)


@torch.inference_mode()
def trained_drafts(network: Network, ids: Items[int]) -> torch.Tensor:
    count = len(ids) - 1
    context = network.context(torch.arange(count)[None], torch.ones(count, count).tril().bool()[None, None])
    state = network(torch.tensor([ids[:-1]]), context)
    drafted = network.mtp(network.embed_tokens(torch.tensor([ids[1:]])), state, context)
    logits: torch.Tensor = network.lm_head(drafted)[0]
    return logits


def some_ids(vocabulary: int, count: int) -> list[int]:
    return torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(3)).tolist()


def test_nano_drafts_equal_the_networks_it_was_trained_as() -> None:
    ids = some_ids(4096, 300)
    expected = trained_drafts(model_import(NANO), ids)
    found = drafts(load_model(NANO, mtp=True), ids, [250, 1, 48])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert expected.abs().max() > 5


def test_random_drafts_equal_plain_torch(folder: Path) -> None:
    """YaRN, groups and a bias, past the original context of 64; every chunking gives the same."""
    ids = some_ids(264, 120)
    expected = trained_drafts(model_import(folder), ids)
    model = load_model(folder, mtp=True)
    for chunks in ([119], [64, 1, 1, 53]):
        torch.testing.assert_close(drafts(model, ids, chunks), expected, rtol=0, atol=5e-5)


def test_the_module_is_loaded_on_request_and_changes_nothing_else(folder: Path) -> None:
    without, with_ = load_model(folder), load_model(folder, mtp=True)
    assert without.mtp is None
    assert with_.new_cache(pages=2, page_size=4).shape[0] == 4
    assert without.new_cache(pages=2, page_size=4).shape[0] == 3


def test_without_a_module_in_the_config_none_is_loaded(tiny_dir: Path) -> None:
    assert load_model(tiny_dir, mtp=True).mtp is None


def edit(folder: Path, target: Path, change: Any) -> Path:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


def test_published_copies_of_embedding_and_head_are_not_needed(folder: Path, tmp_path: Path) -> None:
    def copy(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.3.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.3.shared_head.head.weight"] = tensors["lm_head.weight"].clone()

    ids = some_ids(264, 20)
    found = drafts(load_model(edit(folder, tmp_path, copy), mtp=True), ids, [19])
    assert found.equal(drafts(load_model(folder, mtp=True), ids, [19]))


def test_a_missing_part_of_a_wanted_module_is_named(folder: Path, tmp_path: Path) -> None:
    path = edit(folder, tmp_path, lambda tensors: tensors.pop("model.layers.3.eh_proj.weight"))
    load_model(path)
    with pytest.raises(CheckpointError, match=r"1 missing: model.layers.3.eh_proj.weight"):
        load_model(path, mtp=True)
    assert json.loads((path / "config.json").read_text())["num_nextn_predict_layers"] == 1
