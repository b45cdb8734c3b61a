"""The engine bench without its peers, on a tiny model: works are done, absence is said, rows are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import engine_peers
from bench.engine_groups import forms_best
from bench.engine_limits import Machine, cache_bytes_per_token, step_bytes, step_weight_bytes
from bench.engine_rounds import Rounds
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
            "--vllm",
            "bfloat16/compiled",
            "--peers",
            "nowhere",
            *options,
        ]
    )
    out = capsys.readouterr().out
    for name in ("llama.cpp bf16", "llama.cpp q8_0", "vLLM bfloat16/compiled"):
        assert f"left out: tiny: {name}: not " in out
    rows = json.loads((tmp_path / "build/bench/engine_peers.json").read_text())
    timed = {row["metric"]: row for row in rows if row["unit"] == "tok/s"}
    assert set(timed) == {
        f"tiny float32: {work}" for work in ("decode, batch 1", "decode, batch 2", "prefill, 32 tokens")
    }
    for row in timed.values():
        assert row["peer"] == "transformers float32/eager"
        assert row["value"] > 0 < row["limit"]
        assert row["ratio"] == pytest.approx(row["value"] / row["peer_value"])
    memory = [row["value"] for row in rows if "peak memory" in row["metric"]]
    assert len(memory) == 3  # ours, transformers, and ours while packing
    assert min(memory) > 50
    (cache,) = [row for row in rows if row["metric"].endswith("cache per token")]
    assert cache["value"] <= 1.02 * cache["limit"]
    samples = json.loads((tmp_path / "build/bench/engine_peers_samples_tiny.json").read_text())
    assert {len(sample["tokens_per_s"]) for sample in samples} == {1}


def test_a_side_that_can_not_load_says_where_its_log_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(SideError, match=str(log)):
        ProcessSide("bench.peers.ours", [str(tmp_path), "float32", "1", str(tmp_path)], log=log, threads=1)
    assert "config.json" in log.read_text()


def test_a_side_that_does_not_answer_in_time_is_ended(tiny: Path, tmp_path: Path) -> None:
    arguments = [str(tiny), "float32", "1", str(tmp_path / "packed")]
    with ProcessSide("bench.peers.ours", arguments, log=tmp_path / "log", threads=1, limit_s=0.0) as side:
        with pytest.raises(SideError, match="no answer within 0 s"):
            side.rate(Work("decode", 1, 8, 4))
        with pytest.raises(SideError, match="it has ended"):
            side.rate(Work("decode", 1, 8, 4))


class Slow:
    """A side of a given rate that remembers what it was asked for."""

    peak_bytes = 0

    def __init__(self, tokens_per_s: float) -> None:
        self._rate = tokens_per_s
        self.done: list[Work] = []

    def rate(self, work: Work) -> float:
        self.done.append(work)
        return self._rate


def test_what_would_take_too_long_is_shortened_or_stays_with_its_short_work() -> None:
    works = [Work("decode", 1, 128, 128), Work("decode", 32, 128, 32), Work("prefill", 1, 1024, 1)]
    free, slow, slower = Slow(1e6), Slow(40.0), Slow(4.0)
    sides = {"free": free, "slow": slow, "slower": slower}
    rounds = Rounds(sides, limits_s={"slow": 6.0, "slower": 6.0})
    rounds.warm_up(works)
    rounds.round(works)
    assert free.done == [works[2].probe, works[0].probe, works[1].probe, *works]
    assert slow.done == [works[2].probe, works[0].probe, Work("decode", 1, 188, 8)]
    assert slower.done == [works[2].probe, works[0].probe]
    assert {work for name, work in rounds.notes if name == "slow"} == set(works[1:])
    assert rounds.median("slower", works[0]) == 4.0
    assert "would take" in rounds.notes["slower", works[0]]


def test_only_the_fastest_forms_are_measured_and_hopeless_ones_are_not_tried_to_the_end() -> None:
    works = [Work("decode", 1, 8, 2), Work("prefill", 1, 64, 1)]
    forms = {"a": Slow(10.0), "b": Slow(9.0), "c": Slow(1.0)}
    absent: dict[str, str] = {}
    starts = {name: (lambda _, side=side: side) for name, side in forms.items()}
    assert list(forms_best(starts, works, absent, limit_s=60.0)) == ["a"]
    assert absent == {
        "b": "slower in every short work than a",
        "c": "more than 4 times slower than another form",
    }
    assert len(forms["c"].done) == 2 < len(forms["b"].done)


def test_check_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers_main(["check", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == ["llama.cpp: missing", "vLLM: missing"]
    assert peers_main(["check", "--peer", "vllm", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == ["vLLM: missing"]


def test_prompts_of_one_work_differ_from_the_first_token_on() -> None:
    prompts = Work("decode", 32, 8, 4).prompts(264)
    assert len({prompt[0] for prompt in prompts}) == 32
    assert all(16 <= token < 264 for prompt in prompts for token in prompt)


def test_decoding_attends_over_latents_or_over_whole_keys_whichever_is_faster() -> None:
    config = ModelConfig.from_dict(MEDIUM_V2)
    rate = {"batch": 32, "context": 4000}
    reads_slowly = Machine("int8", read_bytes=1e9, operations=1e15, float_operations=1e15)
    cached = 32 * 4000 * cache_bytes_per_token(config, weights="int8")
    assert cached == 32 * 4000 * 16 * (512 + 64) * 2
    size = step_weight_bytes(config, batch=32, weights="int8") + cached
    assert reads_slowly.decode_limit(config, **rate) == pytest.approx(32e9 / size)
    works_slowly = Machine("int8", read_bytes=1e15, operations=1e15, float_operations=1e9)
    operations = 2 * 16 * 4000 * 16 * (128 + 64 + 128)
    assert works_slowly.decode_limit(config, **rate) == pytest.approx(1e9 / operations, rel=0.01)


def test_the_limit_is_the_slower_of_reading_and_computing() -> None:
    config = ModelConfig.from_dict(MEDIUM_V2)
    reads = Machine("int8", read_bytes=1e9, operations=1e15, float_operations=1e15)
    works = Machine("int8", read_bytes=1e15, operations=1e9, float_operations=1e9)
    size = step_bytes(config, batch=8, context=192, weights="int8")
    assert reads.decode_limit(config, batch=8, context=192) == pytest.approx(8e9 / size)
    slow = works.decode_limit(config, batch=8, context=192)
    assert slow == pytest.approx(works.decode_limit(config, batch=1, context=192))
    assert 0.2e9 < step_bytes(config, batch=1, context=192, weights="int8") < 0.5e9
    assert 1.3e9 < step_bytes(config, batch=32, context=192, weights="int8") < 1.6e9
