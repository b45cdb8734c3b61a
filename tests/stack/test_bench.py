"""Which benches run, and what they are told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from stack import bench


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would run; those with "kernels" fail."""
    commands: list[list[str]] = []

    def run(command: list[str], **_more: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, int("bench.kernels" in command))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TOKENWORKS_DATA", str(tmp_path))
    return commands


def test_a_bench_gets_its_trace_or_is_left_out(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / bench.TRACES["bench.prefix_cache"]
    assert bench.main(["prefix_cache"]) == 0
    assert ran == []
    assert "left out" in capsys.readouterr().out
    trace.touch()
    assert bench.main(["prefix_cache"]) == 0
    assert ran == [["bench.prefix_cache", "--trace", str(trace)]]


def test_all_benches_run_and_one_failure_is_the_result_of_all(ran: list[list[str]]) -> None:
    assert bench.main([]) == 1
    assert [command[0] for command in ran] == [name for name in bench.BENCHES if name not in bench.TRACES]
