"""`make bench`: all that is there runs, what fails is told and does not stop the rest."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from stack import bench


@pytest.fixture
def benches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the repository, with a package of benches."""
    package = tmp_path / "bench"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "good.py").write_text("print('measured')")
    (package / "bad.py").write_text("raise SystemExit(3)")
    (package / "slow.py").write_text("import time; time.sleep(30)")
    (package / "traced.py").write_text("import sys; print(sys.argv[1:])")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "TRACES", {"bench.traced": "trace.gz"})
    monkeypatch.setenv("TOKENWORKS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def test_one_that_fails_does_not_stop_the_others(benches: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["bad", "bench.good", "traced"]) == 1
    out = capfd.readouterr().out
    assert "bench.bad: FAILED with status 3" in out
    assert "measured" in out
    assert f"bench.traced: left out: trace.gz is not in {benches / 'data'}" in out
    assert "3 benches in " in out
    assert bench.main(["good", "traced"]) == 0


def test_a_trace_that_is_there_is_passed_on(benches: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (benches / "data").mkdir()
    (benches / "data" / "trace.gz").touch()
    assert bench.main(["traced"]) == 0
    assert str(benches / "data" / "trace.gz") in capfd.readouterr().out


def test_one_that_hangs_is_ended(benches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LIMIT_S", 0.2)
    assert bench.run("bench.slow") == "FAILED, ended after 0.2 s"


def test_all_run_that_have_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_more: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, int("bench.kernels" in command))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TOKENWORKS_DATA", str(tmp_path))
    assert bench.main([]) == 1
    assert [command[0] for command in commands] == [
        name for name in bench.BENCHES if name not in bench.TRACES
    ]


def test_all_benches_exist() -> None:
    root = Path(bench.__file__).resolve().parents[2]
    assert all((root / f"{name.replace('.', '/')}.py").exists() for name in bench.BENCHES)
    assert set(bench.TRACES) <= set(bench.BENCHES)
