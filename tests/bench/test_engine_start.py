"""A worker's start is timed up to its first token, the first one and those from the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import engine_start
from inference.models.random_checkpoint import random_checkpoint_write
from inference.models.sizes import TINY_V3


def test_a_worker_starts_packs_and_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random_checkpoint_write(path=tmp_path / "tiny", config=TINY_V3)
    engine_start.main(["--model", str(tmp_path / "tiny"), "--threads", "1", "--rounds", "1"])
    rows = json.loads((tmp_path / "build/bench/engine_start.json").read_text())
    first, loaded, token = (row["value"] for row in rows)
    assert 0 < loaded < token
    assert first > 0
    assert rows[2]["limit"] == engine_start.TARGET_S
    assert list((tmp_path / "build/bench/start-tiny-int8/packed").glob("*/lm_head.safetensors"))


def test_a_worker_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before its first token"):
        engine_start.start([str(tmp_path), "int8", "1", str(tmp_path / "state")])
