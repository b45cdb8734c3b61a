"""Training learns, resumes exactly, and keeps its files whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from inference.models.config import ModelConfig
from inference.train.checkpoint import Snapshot, snapshot_read, snapshot_write
from inference.train.corpus import SourceText
from inference.train.epochs import EpochSource
from inference.train.network import Network
from inference.train.optimizer import orthogonalise
from inference.train.settings import TrainSettings
from inference.train.trainer import Limit, Trainer, log_read, rate_multiplier

SETTINGS = TrainSettings(
    row_tokens=32,
    long_row_tokens=48,
    long_from_progress=0.75,
    batch_tokens=192,
    warmup_steps=3,
    bias_step=0.01,
)
TEXT = "".join(f"def area{n}(width, height):\n    return width * height + {n}\n\n\n" for n in range(40))


def trainer(architecture: dict[str, object], tokenizer: Tokenizer, folder: Path) -> Trainer:
    torch.manual_seed(5)
    source = EpochSource(texts=[SourceText("a.py", TEXT)], tokenizer=tokenizer, seed=1, fim_rate=0.5)
    network = Network(ModelConfig.from_dict(architecture))
    return Trainer(network, source, SETTINGS, folder=folder, stage="pretrain")


def quiet(_line: str) -> None:
    """Swallow progress lines."""


def test_thirty_steps_lower_both_losses(
    tiny_architecture: dict[str, object], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    run = trainer(tiny_architecture, tokenizer, tmp_path)
    run.run(Limit(steps=30), log_every=5, say=quiet)
    lines = log_read(tmp_path / "pretrain.log.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["mtp_loss"] < 0.85 * lines[0]["mtp_loss"]
    assert len(lines[0]["load"]) == 3  # two routing layers and the draft module
    assert all(abs(sum(layer) - 1) < 1e-3 for layer in lines[-1]["load"])


def test_a_killed_run_goes_on_exactly(
    tiny_architecture: dict[str, object], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """16 steps equal 8 steps, a stop without farewell at step 10, and the rest: in fp32, to the bit."""
    whole = trainer(tiny_architecture, tokenizer, tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole.run(Limit(steps=16), save_every=8, log_every=2, say=quiet)

    killed = trainer(tiny_architecture, tokenizer, tmp_path / "parts")
    limit = Limit(steps=16)
    with pytest.raises(RuntimeError, match="killed"):
        killed.run(limit, save_every=8, log_every=2, say=lambda line: _die_at(line, "step    10"))
    resumed = trainer(tiny_architecture, tokenizer, tmp_path / "parts")
    assert resumed.resume()
    assert resumed.step == 8
    resumed.run(limit, save_every=8, log_every=2, say=quiet)

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    for name, value in whole.optimizer.named_state().items():
        assert torch.equal(value, resumed.optimizer.named_state()[name]), name
    assert resumed.cursor == whole.cursor
    logs = [log_read(tmp_path / part / "pretrain.log.jsonl") for part in ("whole", "parts")]
    assert [(line["step"], line["loss"]) for line in logs[0]] == [
        (line["step"], line["loss"]) for line in logs[1]
    ]


def _die_at(line: str, mark: str) -> None:
    if mark in line:
        raise RuntimeError("killed")


def test_a_half_written_checkpoint_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "pretrain.safetensors"
    assert snapshot_read(path=path) is None
    random_state = torch.get_rng_state()
    first = Snapshot({"w": torch.ones(2)}, {"w/momentum": torch.zeros(2)}, random_state, {"step": 1})
    snapshot_write(first, path=path)
    path.with_suffix(".partial").write_bytes(b"torn")
    read = snapshot_read(path=path)
    assert read is not None
    assert read.facts == {"step": 1}
    assert torch.equal(read.network["w"], torch.ones(2))
    assert torch.equal(read.random_state, random_state)
    snapshot_write(replace(first, facts={"step": 2}), path=path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_torn_log_line_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert log_read(path) == [{"step": 1}]


def test_the_rate_warms_up_stays_and_falls() -> None:
    settings = TrainSettings(warmup_steps=10, decay_from_progress=0.5, final_lr_fraction=0.1)
    rates = [rate_multiplier(settings, step=step, progress=step / 100) for step in (0, 9, 50, 75, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1])


def test_a_limit_counts_steps_or_minutes() -> None:
    assert Limit(steps=10).progress(step=5, elapsed_s=1e9) == 0.5
    assert Limit(minutes=2).progress(step=999, elapsed_s=60) == 0.5
    assert Limit(minutes=2).progress(step=1, elapsed_s=500) == 1.0


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 48), (48, 16), (3, 2, 16, 24)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5
