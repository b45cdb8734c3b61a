"""The engine bench without its peers, on a tiny model: works are done, absence is said, rows are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import engine_peers
from bench.engine_limits import Machine, step_bytes
from bench.peers.__main__ import main as peers_main
from bench.peers.process import ProcessSide, SideError
from bench.peers.work import Work
from inference.models.config import ModelConfig
from inference.models.random_checkpoint import random_checkpoint_write
from inference.models.sizes import MEDIUM_V2, TINY_V3


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    random_checkpoint_write(path=path, config=TINY_V3)
    return path


def test_the_table_is_made_without_peers_and_names_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "--threads",
        "1",
        "--rounds",
        "1",
        "--new",
        "4",
        "--batch",
        "1",
        "--batch",
        "2",
        "--prompt",
        "8",
        "--long",
        "32",
    ]
    engine_peers.main(
        [
            "--model",
            str(tiny),
            "--weights",
            "float32",
            "--hf",
            "float32/eager",
            "--peers",
            "nowhere",
            *options,
        ]
    )
    out = capsys.readouterr().out
    for name in ("llama.cpp bf16", "llama.cpp q8_0", "vLLM bfloat16/compiled"):
        assert f"left out: {name}: not " in out
    rows = json.loads((tmp_path / "build/bench/engine_peers.json").read_text())
    timed = {row["metric"]: row for row in rows if row["unit"] == "tok/s"}
    assert set(timed) == {
        f"tiny float32: {work}" for work in ("decode, batch 1", "decode, batch 2", "prefill, 32 tokens")
    }
    for row in timed.values():
        assert row["peer"] == "transformers float32/eager"
        assert row["value"] > 0 < row["limit"]
        assert row["ratio"] == pytest.approx(row["value"] / row["peer_value"])
    memory = [row["value"] for row in rows if row["metric"].endswith("peak memory")]
    assert len(memory) == 2
    assert min(memory) > 50
    samples = json.loads((tmp_path / "build/bench/engine_peers_samples_tiny.json").read_text())
    assert {len(sample["tokens_per_s"]) for sample in samples} == {1}


def test_a_side_that_can_not_load_says_where_its_log_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(SideError, match=str(log)):
        ProcessSide("bench.peers.ours", [str(tmp_path), "float32", "1"], log=log, threads=1)
    assert "config.json" in log.read_text()


def test_check_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers_main(["check", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == ["llama.cpp: missing", "vLLM: missing"]


def test_prompts_of_one_work_differ_from_the_first_token_on() -> None:
    prompts = Work("decode", 32, 8, 4).prompts(264)
    assert len({prompt[0] for prompt in prompts}) == 32
    assert all(16 <= token < 264 for prompt in prompts for token in prompt)


def test_the_limit_is_the_slower_of_reading_and_computing() -> None:
    config = ModelConfig.from_dict(MEDIUM_V2)
    reads = Machine("int8", read_bytes=1e9, operations=1e15)
    works = Machine("int8", read_bytes=1e15, operations=1e9)
    size = step_bytes(config, batch=8, context=192, weights="int8")
    assert reads.decode_limit(config, batch=8, context=192) == pytest.approx(8e9 / size)
    slow = works.decode_limit(config, batch=8, context=192)
    assert slow == pytest.approx(works.decode_limit(config, batch=1, context=192))
    assert 0.2e9 < step_bytes(config, batch=1, context=192, weights="int8") < 0.5e9
    assert 1.3e9 < step_bytes(config, batch=32, context=192, weights="int8") < 1.6e9
