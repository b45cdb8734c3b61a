"""The command line says what to do first, and in the user's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.train.cli import build_parser, main


@pytest.mark.parametrize(
    ("stage", "missing", "command"),
    [
        ("tokenizer", "train.jsonl", "python -m inference.train corpus"),
        ("pretrain", "tokenizer.json", "python -m inference.train tokenizer"),
    ],
)
def test_a_stage_names_the_one_it_needs(
    stage: str, missing: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stage, "--run", str(tmp_path), "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert missing in said
    assert command in said


def test_steps_and_minutes_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["pretrain", "--steps", "3", "--minutes", "4"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_every_stage_has_help() -> None:
    text = build_parser().format_help()
    for stage in ("corpus", "tokenizer", "pretrain", "chat", "evaluate", "export", "all"):
        assert stage in text
