"""From text to a profile, to what it costs, on a tiny checkpoint."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine.loading import engine_load
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models.random_checkpoint import random_checkpoint_write
from inference.models.sizes import TINY_V3
from inference.routing.profile import profile_load
from inference.routing.selection import enough_left
from inference.routing_profile.cli import main
from inference.routing_profile.windows import routed_model

TEXT = "".join(f"def f{i}(x):\n    return x + {i}\n\n" for i in range(40))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "code.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def material(tiny_dir: Path, text: Path) -> list[str]:
    """The arguments that say what is read, and how."""
    return ["--model", str(tiny_dir), "--text", str(text), "--window", "96", "--threads", "1"]


def made(material: list[str], out: Path, mode: str, *more: str) -> Path:
    assert main(["make", *material, "--mode", mode, "--out", str(out), *more]) == 0
    return out


@pytest.mark.parametrize("mode", ["pool", "session", "hash"])
def test_a_profile_is_made_shown_and_measured(
    material: list[str], tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(material, tmp_path / "p.profile", mode)
    profile = profile_load(path)
    assert (profile.mode, profile.domain, profile.layers, profile.experts) == (mode, "code", 2, 8)
    assert profile.size == {"pool": 4, "session": 4, "hash": 2}[mode]
    assert 0.2 < profile.covered <= 1
    assert "windows," in capsys.readouterr().out
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert profile.id in shown
    assert f"{profile.size} of 8" in shown
    assert main(["quality", *material, "--profile", str(path), "--tasks", "6"]) == 0
    found = json.loads((tmp_path / "p.quality.json").read_text(encoding="utf-8"))
    quality = found["quality"]
    assert found["profile"] == profile.id
    assert quality["kl"]["mean"] > 0
    assert 0 < quality["agreement"] < 100
    assert 0 < quality["covered"] < 1
    assert len(quality["covered_L"]) == 2
    assert found["next_lines"]["tasks"] == 6
    assert (tmp_path / "p.quality.png").read_bytes().startswith(b"\x89PNG")
    assert "likeliest token agrees" in capsys.readouterr().out


def test_keeping_all_experts_changes_nothing(material: list[str], tmp_path: Path) -> None:
    path = made(material, tmp_path / "p.profile", "pool", "--size", "8")
    assert profile_load(path).covered == pytest.approx(1.0)
    out = tmp_path / "found.json"
    assert main(["quality", *material, "--profile", str(path), "--tasks", "4", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["quality"]["delta_nll"]["mean"] == pytest.approx(0, abs=1e-5)
    assert found["quality"]["kl"]["mean"] == pytest.approx(0, abs=1e-5)
    assert found["quality"]["agreement"] == 100
    assert found["quality"]["covered"] == pytest.approx(1.0)
    assert (found["next_lines"]["lost"], found["next_lines"]["won"]) == (0, 0)


def test_the_engine_serves_what_was_made(material: list[str], tiny_dir: Path, tmp_path: Path) -> None:
    path = made(material, tmp_path / "p.profile", "pool", "--size", "5", "--coverage-min", "0.1")
    profile = profile_load(path)
    _, spec = routed_model(tiny_dir, "float32").routers[0]
    assert profile.experts_LM is not None
    for kept_M in profile.experts_LM:
        assert enough_left(torch.zeros(8, dtype=torch.bool).scatter(0, kept_M, True), spec)
    engine = engine_load(tiny_dir, EngineConfig(pages=64, routing_profiles=(str(path),))).engine
    params = SamplingParams(max_tokens=3, temperature=0, ignore_eos=True)
    engine.submit(GenerationRequest("r", tuple(range(20, 60)), params, routing=profile.id))
    events = []
    while engine.has_work:
        events += engine.step()
    assert events[-1].routing == profile.id
    assert events[-1].completion_tokens == 3


def test_unless_told_otherwise_few_windows_of_the_text_itself_would_fall_back(
    material: list[str], tmp_path: Path
) -> None:
    path = made(material, tmp_path / "p.profile", "pool")
    out = tmp_path / "found.json"
    assert main(["quality", *material, "--profile", str(path), "--tasks", "0", "--out", str(out)]) == 0
    quality = json.loads(out.read_text(encoding="utf-8"))["quality"]
    assert 0 <= quality["fell_back"] <= 0.15
    assert json.loads(out.read_text(encoding="utf-8"))["next_lines"] is None


def test_without_matplotlib_figures_are_written_and_the_plot_is_said_to_be_missing(
    material: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = made(material, tmp_path / "p.profile", "pool")
    real = builtins.__import__

    def absent(name: str, *rest: Any, **fields: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **fields)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["quality", *material, "--profile", str(path), "--tasks", "0"]) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert (tmp_path / "p.quality.json").exists()
    assert not (tmp_path / "p.quality.png").exists()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["make", "--mode", "pool", "--size", "1"], "experts kept per layer: expected"),
        (["make", "--mode", "hash", "--size", "4"], "a table names as many experts as a token uses: 2"),
    ],
)
def test_sizes_that_can_not_be_are_one_clear_line(
    material: list[str], tmp_path: Path, order: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*order, *material, "--out", str(tmp_path / "p")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_files_that_can_not_be_used_are_one_clear_line(
    material: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    random_checkpoint_write(path=other, config=TINY_V3, seed=7)
    path = made([*material, "--model", str(other)], tmp_path / "p.profile", "pool")
    measure = ["quality", *material, "--profile", str(path)]
    assert main(measure) == 1
    assert "was made for another checkpoint" in capsys.readouterr().err
    (tmp_path / "empty").write_text("", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    for name, message in (("empty", "shorter than"), ("binary", "not readable"), ("absent", "not readable")):
        assert main([*measure, "--text", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
    assert main(["show", str(tmp_path / "binary")]) == 1
    assert "not readable as a routing profile" in capsys.readouterr().err
