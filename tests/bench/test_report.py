from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import compare, report

FIELDS = ["metric", "value", "unit", "peer", "peer_value", "ratio", "limit", "fraction"]


def test_rows_are_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        compare("decode", 300.0, "tok/s", peer="other", peer_value=100.0, limit=400.0),
        compare("wait, p99", 2.0, "ms", peer="other", peer_value=3.0, limit=1.0, lower_is_better=True),
        compare("alone", 5.0, "s"),
    ]
    path = report("speed", rows, folder=tmp_path)
    written = json.loads(path.read_text())
    assert path == tmp_path / "speed.json"
    assert [list(row) for row in written] == [FIELDS] * 3
    assert [(row["ratio"], row["fraction"]) for row in written] == [(3.0, 0.75), (1.5, 0.5), (None, None)]
    shown = capsys.readouterr().out
    assert "3.00×" in shown
    assert "75%" in shown
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]


def test_nothing_is_divided_by_nothing() -> None:
    assert compare("idle", 0.0, "ms", peer_value=3.0, lower_is_better=True).ratio is None
    assert compare("idle", 1.0, "ms", peer_value=0.0).ratio is None
