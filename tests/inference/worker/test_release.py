"""Which files make a release, and how a worker proves that it has them."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import pytest

from inference import messages
from inference.messages import ByteRange, challenge_proof, manifest_digest, release_manifest
from inference.worker.membership.release import LocalRelease, release_begin, release_read

FILES = {
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "tokenizer.json": b"[]",
    "tokenizer_config.json": b"[1]",
    "tiktoken.model": b"YQ== 0",
    "chat_template.jinja": b"x",
    "model-00001-of-00001.safetensors": b"weights and more weights",
    "model.safetensors.index.json": b"{}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "release"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    return path


def test_the_manifest_names_what_defines_the_release_and_nothing_else(folder: Path) -> None:
    for name in (
        "README.md",
        ".gitattributes",
        ".config.json",
        "loss.png",
        "training_log.json",
        "tokenization_kimi.py",
    ):
        (folder / name).write_bytes(b"other")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_bytes(b"other")
    assert release_manifest(folder) == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }


def test_the_digest_changes_with_one_byte_of_weights_but_not_with_the_readme(folder: Path) -> None:
    before = release_read(folder).digest
    (folder / "README.md").write_text("changed")
    assert release_read(folder).digest == before
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"weights and more weighty")
    assert release_read(folder).digest != before


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_file_is_hashed_whole_in_however_many_parts(
    folder: Path, over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_MAPPED_BYTES", mmap.ALLOCATIONGRANULARITY)
    data = bytes(range(256)) * (2 * mmap.ALLOCATIONGRANULARITY // 256) + b"more"
    data = data[: 2 * mmap.ALLOCATIONGRANULARITY + over]
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "tokenizer_config.json").write_bytes(b"")
    manifest = release_manifest(folder)
    assert manifest["tokenizer.json"] == hashlib.sha256(data).hexdigest()
    assert manifest["tokenizer_config.json"] == hashlib.sha256(b"").hexdigest()


def test_a_release_may_be_hashed_while_others_go_on(folder: Path) -> None:
    assert release_begin(folder).result(10) == release_read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="is no release"):
        release_begin(folder).result(10)


@pytest.mark.parametrize("missing", ["config.json", "model-00001-of-00001.safetensors"])
def test_a_folder_without_config_or_weights_is_no_release(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ValueError, match="is no release"):
        release_manifest(folder)


def test_a_proof_covers_the_bytes_asked_for(folder: Path) -> None:
    release = release_read(folder)
    ranges = [ByteRange("config.json", 0, 2), ByteRange("model-00001-of-00001.safetensors", 8, 7)]
    assert release.prove("n", ranges) == challenge_proof("n", [b"{}", b"and mor"])
    assert release.prove("n", ranges) != release.prove("m", ranges)
    assert release.digest == manifest_digest(release.manifest)


@pytest.mark.parametrize(
    "span",
    [
        ByteRange("../secret", 0, 1),
        ByteRange("README.md", 0, 1),
        ByteRange("config.json", -1, 1),
        ByteRange("config.json", 1, 2),
        ByteRange("config.json", 0, 2**40),
    ],
)
def test_a_challenge_reads_nothing_but_the_release(folder: Path, span: ByteRange) -> None:
    (folder / "README.md").write_text("mine")
    (folder.parent / "secret").write_text("mine")
    release: LocalRelease = release_read(folder)
    with pytest.raises(ValueError, match="the challenge asks for"):
        release.prove("n", [span])
