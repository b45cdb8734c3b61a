"""Two runs of lm_eval, as files, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.lm_eval_results import compare_runs


def run_write(folder: Path, acc: float, choices: list[list[object]], text: str) -> Path:
    folder = folder / "model"
    folder.mkdir(parents=True)
    results = {
        "choices": {"acc,none": acc, "acc_stderr,none": 0.1, "alias": "choices"},
        "texts": {"exact_match,none": 1},
    }
    (folder / "results_1.json").write_text(json.dumps({"results": results}))
    line = {"doc_id": 0, "resps": [[choice] for choice in choices]}
    (folder / "samples_choices_1.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "samples_texts_1.jsonl").write_text(json.dumps({"doc_id": 0, "resps": [[text]]}) + "\n")
    return folder.parent


def test_scores_differences_and_equal_answers(tmp_path: Path) -> None:
    ours = run_write(tmp_path / "ours", 0.5, [[-100.0, "True"], [-0.5, "False"]], "a = 1")
    theirs = run_write(tmp_path / "theirs", 0.25, [[-100.5, "True"], [-0.25, "True"]], "a = 2")
    rows = {row.metric: row for row in compare_runs(ours, theirs, ["choices", "texts"])}
    assert (rows["choices: acc"].value, rows["choices: acc"].peer_value) == (0.5, 0.25)
    assert rows["choices: largest difference of log likelihoods"].value == pytest.approx(0.5)
    assert rows["choices: the same, relative"].value == pytest.approx(0.25)  # small ones are taken as 1
    assert (rows["choices: equal greedy flags"].value, rows["choices: equal greedy flags"].unit) == (
        1,
        "of 2",
    )
    assert rows["texts: equal texts"].value == 0
    assert len(rows) == 6


def test_runs_of_other_items_are_refused(tmp_path: Path) -> None:
    ours = run_write(tmp_path / "ours", 0.5, [[-1.0, "True"], [-2.0, "True"]], "x")
    theirs = run_write(tmp_path / "theirs", 0.5, [[-1.0, "True"]], "x")
    with pytest.raises(ValueError, match="shorter"):
        compare_runs(ours, theirs, ["choices"])
