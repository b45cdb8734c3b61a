"""Packed weights come back from disk as they were made, mapped, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch

from inference.layers.attention import AttentionShape, AttentionWeights
from inference.layers.forms import Packing
from inference.models import packed, reader, streaming
from inference.models.checkpoint import CheckpointError
from inference.models.loader import load_model
from inference.models.packed import PackedStore, read_piece, write_piece
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from moe_ops.grouped_mlp import PackedExperts, pack_experts
from moe_ops.linear import FORMATS, PackedMatrix, WeightFormat, pack_matrix, packed_shapes

LogitsOf = Callable[..., list[torch.Tensor]]
PROMPT = list(range(20, 90))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_checkpoint_write(path=tmp_path / "model", config={**TINY_V3, "num_nextn_predict_layers": 1})
    return tmp_path / "model"


def pieces(cache: Path) -> dict[str, tuple[int, int]]:
    """Every file of packed weights with what shows that it was written anew."""
    files = cache.glob("*/*.safetensors")
    return {str(file.relative_to(cache)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def assert_equal(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        assert found.equal(expected)
        assert found.is_contiguous()
    elif is_dataclass(expected):
        for field in fields(expected):
            assert_equal(getattr(found, field.name), getattr(expected, field.name))
    else:
        assert found == expected


def attention(weight_format: WeightFormat) -> AttentionWeights:
    shape = AttentionShape(heads=2, nope=6, rotary=4, value=5, latent=7, scale=1.0)
    return AttentionWeights.pack(
        q=torch.randn(9, 33), q_norm=torch.randn(9), q_b=torch.randn(20, 9), kv_a=torch.randn(11, 33),
        kv_norm=torch.randn(7), kv_b=torch.randn(22, 7), o=torch.randn(33, 10), shape=shape,
        weight_format=weight_format,
    )  # fmt: skip


@pytest.mark.parametrize("weight_format", FORMATS)
def test_pieces_come_back_as_they_were(tmp_path: Path, weight_format: WeightFormat) -> None:
    made = [
        pack_matrix(torch.randn(19, 150), weight_format, activations="float"),
        pack_experts(torch.randn(3, 34, 40), torch.randn(3, 40, 17), weight_format),
        attention(weight_format),
    ]
    for place, piece in enumerate(made):
        write_piece(tmp_path / f"{place}.safetensors", piece)
        assert_equal(read_piece(tmp_path / f"{place}.safetensors"), piece)
    assert len(list(tmp_path.iterdir())) == len(made)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_cached_model_computes_what_a_packed_one_does(
    folder: Path, tmp_path: Path, weight_format: WeightFormat, logits_of: LogitsOf
) -> None:
    expected = logits_of(load_model(folder, weights=weight_format), [PROMPT])[0]
    cache = tmp_path / "cache"
    first = logits_of(load_model(folder, weights=weight_format, cache_dir=cache), [PROMPT])[0]
    written = pieces(cache)
    second = logits_of(load_model(folder, weights=weight_format, cache_dir=cache), [PROMPT])[0]
    assert first.equal(expected)
    assert second.equal(expected)
    assert pieces(cache) == written


def test_a_cached_start_packs_and_expands_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(folder, weights="int8", mtp=True, cache_dir=tmp_path / "cache")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("packed although it is in the cache")

    monkeypatch.setattr(reader, "pack_experts", refuse)
    monkeypatch.setattr(Packing, "pack", refuse)
    monkeypatch.setattr(AttentionWeights, "pack", refuse)
    assert load_model(folder, weights="int8", mtp=True, cache_dir=tmp_path / "cache").mtp is not None
    with pytest.raises(AssertionError, match="packed although"):
        load_model(folder, weights="int4", cache_dir=tmp_path / "cache")


def test_the_prediction_module_is_added_to_what_is_there(folder: Path, tmp_path: Path) -> None:
    load_model(folder, weights="int8", cache_dir=tmp_path / "cache")
    before = pieces(tmp_path / "cache")
    load_model(folder, weights="int8", mtp=True, cache_dir=tmp_path / "cache")
    after = pieces(tmp_path / "cache")
    assert before.items() < after.items()
    assert {Path(name).name for name in after.keys() - before.keys()} == {
        f"model.layers.3.{part}.safetensors" for part in ("self_attn", "mlp", "eh_proj")
    }


def test_other_contents_get_another_folder_even_at_equal_size(
    folder: Path, tmp_path: Path, logits_of: LogitsOf
) -> None:
    cache = tmp_path / "cache"
    old = logits_of(load_model(folder, weights="int8", cache_dir=cache), [PROMPT])[0]
    random_checkpoint_write(path=folder, config={**TINY_V3, "num_nextn_predict_layers": 1}, seed=1)
    new = logits_of(load_model(folder, weights="int8", cache_dir=cache), [PROMPT])[0]
    assert not new.equal(old)
    assert new.equal(logits_of(load_model(folder, weights="int8"), [PROMPT])[0])


def test_a_copied_or_touched_checkpoint_finds_the_same_folder(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load_model(folder, weights="int8", cache_dir=cache)
    before = pieces(cache)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    os.utime(copy / "model.safetensors", ns=(5, 5))
    load_model(copy, weights="int8", cache_dir=cache)
    assert pieces(cache) == before


def test_packing_that_was_cut_short_leaves_no_half_pieces(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logits_of: LogitsOf
) -> None:
    cache = tmp_path / "cache"
    real, left = streaming.write_streaming, 3

    def dying(path: Path, *parts: object, **named: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            path.write_bytes(b"half of it")
            raise OSError("no space left")
        return real(path, *parts, **named)  # type: ignore[arg-type]  # passed through as they came

    monkeypatch.setattr(packed, "write_streaming", dying)
    with pytest.raises(OSError, match="no space left"):
        load_model(folder, weights="int8", cache_dir=cache)
    monkeypatch.undo()
    kept = pieces(cache)
    assert len(kept) == 3
    assert not list(cache.glob("*/.*"))
    found = logits_of(load_model(folder, weights="int8", cache_dir=cache), [PROMPT])[0]
    assert found.equal(logits_of(load_model(folder, weights="int8"), [PROMPT])[0])
    assert kept.items() < pieces(cache).items()


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_damaged_piece_is_refused_with_advice(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "a.safetensors"
    write_piece(file, pack_matrix(torch.randn(16, 32), "int8"))
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"a.safetensors: not readable as safetensors"):
        read_piece(file)


def test_a_piece_of_another_kind_is_refused(tmp_path: Path) -> None:
    store = PackedStore(tmp_path)
    store.piece("a", PackedMatrix, lambda: pack_matrix(torch.randn(16, 32), "int8"))
    with pytest.raises(CheckpointError, match="holds a PackedMatrix; remove it to pack anew"):
        store.piece("a", PackedExperts, lambda: pytest.fail("was made anew"))


def test_pieces_are_mapped_not_copied(tmp_path: Path) -> None:
    """32 MiB are read back within 4 MiB of private memory, from the file's own pages."""
    file = tmp_path / "a.safetensors"
    (data, _), (scales, dtype) = packed_shapes("int8", outputs=8192, inputs=4096)
    made = PackedMatrix(
        "int8", 8192, 4096, torch.ones(data, dtype=torch.int8), torch.ones(scales, dtype=dtype)
    )
    write_piece(file, made)
    before = private_bytes()
    piece = read_piece(file)
    assert isinstance(piece, PackedMatrix)
    assert int(piece.data.sum()) == 8192 * 4096  # every page was touched
    assert private_bytes() - before < 4 * 2**20
    assert str(file) in Path("/proc/self/maps").read_text()
    assert piece.data.data_ptr() % 64 == 0


def private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))
