"""Registering a release, and the challenge only a holder of its files can answer."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ApiError
from inference.messages import challenge_proof, manifest_digest
from releases.challenge import DRAWN_RANGES, RANGE_BYTES, challenge_ranges, proof_is_valid
from releases.models import Release
from releases.selectors import release_available, release_list, releases_available
from releases.services import release_register
from tenants.scope import system_scope

CONFIG = {"max_position_embeddings": 2048, "vocab_size": 8192}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small release."""
    return _folder(tmp_path / "model", seed=1)


def _folder(path: Path, *, seed: int) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(random.Random(seed).randbytes(300_000))
    (path / "README.md").write_text("no part of the release")
    return path


def _release(folder: Path) -> Release:
    """Not stored: the challenge needs manifest and folder only."""
    names = ("config.json", "model.safetensors", "tokenizer.json")
    manifest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return Release(slug="nano", digest=manifest_digest(manifest), manifest=manifest, artifact_dir=str(folder))


def _prove(folder: Path, release: Release, nonce: str) -> str:
    chunks = []
    for part in challenge_ranges(release, nonce):
        data = (folder / part.path).read_bytes()
        assert part.offset + part.length <= len(data)
        chunks.append(data[part.offset : part.offset + part.length])
    return challenge_proof(nonce, chunks)


def test_the_holder_of_the_files_can_prove_it(folder: Path) -> None:
    release = _release(folder)
    assert proof_is_valid(release, "nonce", _prove(folder, release, "nonce"))
    assert not proof_is_valid(release, "other", _prove(folder, release, "nonce"))
    assert not proof_is_valid(release, "nonce", "")
    assert not proof_is_valid(release, "nonce", "ü")


def test_other_weights_cannot(folder: Path, tmp_path: Path) -> None:
    release = _release(folder)
    swapped = _folder(tmp_path / "swapped", seed=2)
    assert not proof_is_valid(release, "nonce", _prove(swapped, release, "nonce"))


def test_ranges_cover_every_file_and_mostly_the_weights(folder: Path) -> None:
    ranges = challenge_ranges(_release(folder), "nonce")
    assert {part.path for part in ranges} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert len(ranges) == 3 + DRAWN_RANGES
    assert sum(part.path == "model.safetensors" for part in ranges) > DRAWN_RANGES // 2
    assert max(part.length for part in ranges) == RANGE_BYTES
    assert ranges == challenge_ranges(_release(folder), "nonce") != challenge_ranges(_release(folder), "n2")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    nonce=st.text(st.characters(codec="ascii"), max_size=64), sizes=st.lists(st.integers(0, 9000), max_size=5)
)
def test_ranges_never_leave_their_file(
    tmp_path_factory: pytest.TempPathFactory, nonce: str, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for number, size in enumerate([1, *sizes]):
        (folder / f"f{number}").write_bytes(b"x" * size)
    release = Release(
        manifest={path.name: "" for path in folder.iterdir()}, artifact_dir=str(folder), slug="s", digest="d"
    )
    for part in challenge_ranges(release, nonce):
        assert part.offset >= 0
        assert 0 <= part.length <= RANGE_BYTES
        assert part.offset + part.length <= (folder / part.path).stat().st_size


def test_files_that_are_away_are_a_503_and_paths_cannot_lead_out(folder: Path) -> None:
    release = _release(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ApiError) as caught:
        challenge_ranges(release, "nonce")
    assert caught.value.status == 503
    for name in ("../secret", "/etc/hostname", "a/../../b"):
        with pytest.raises(ValueError, match="relative"):
            challenge_ranges(Release(manifest={name: ""}, artifact_dir=str(folder)), "nonce")


@pytest.mark.django_db(transaction=True)
def test_registering_reads_the_files_and_is_repeatable(folder: Path) -> None:
    with system_scope():
        release = release_register(slug="nano", model_dir=folder)
        assert (release.max_model_len, release.vocab_size) == (2048, 8192)
        assert set(release.manifest) == {"config.json", "model.safetensors", "tokenizer.json"}
        assert release.digest == manifest_digest(release.manifest)
        assert release_register(slug="nano", model_dir=folder).id == release.id
        moved = folder.rename(folder.with_name("moved"))
        again = release_register(slug="nano", model_dir=moved)
        assert (again.id, again.artifact_dir) == (release.id, str(moved))


@pytest.mark.django_db(transaction=True)
def test_a_new_version_retires_the_old_one_and_can_be_rolled_back(folder: Path, tmp_path: Path) -> None:
    with system_scope():
        old = release_register(slug="nano", model_dir=folder)
        new = release_register(slug="nano", model_dir=_folder(tmp_path / "new", seed=2))
        available = release_available("nano")
        assert available is not None
        assert available.id == new.id != old.id
        release_register(slug="nano", model_dir=folder)
        assert [row.id for row in releases_available()] == [old.id]
        assert [row.state for row in release_list()] == ["retired", "available"]


@pytest.mark.django_db(transaction=True)
def test_a_folder_that_is_no_release_is_refused(folder: Path) -> None:
    for config in ("{}", '{"max_position_embeddings": 0, "vocab_size": 1}', "[]", "{"):
        (folder / "config.json").write_text(config)
        with system_scope(), pytest.raises(ValueError):  # noqa: PT011 - each case has a text of its own
            release_register(slug="nano", model_dir=folder)
