"""Two runs of lm_eval side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Row


def compare_runs(ours: Path, theirs: Path, tasks: Sequence[str]) -> list[Row]:
    """Scores of both; the largest difference of a log likelihood per token of text; equal continuations."""
    scores, their_scores = _scores(ours), _scores(theirs)
    rows = [
        Row(f"{task}: {metric}", value, "", "hf", their_scores[task][metric])
        for task in tasks
        for metric, value in scores[task].items()
    ]
    for task in tasks:
        rows += _sample_rows(task, _samples(ours, task), _samples(theirs, task))
    return rows


def _scores(folder: Path) -> dict[str, dict[str, float]]:
    """Metrics of each task, without their errors."""
    (path,) = folder.rglob("results_*.json")
    results: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return {
        task: {
            metric.removesuffix(",none"): float(value)
            for metric, value in values.items()
            if isinstance(value, int | float) and "stderr" not in metric and "," in metric
        }
        for task, values in results.items()
    }


def _samples(folder: Path, task: str) -> dict[int, list[Any]]:
    """What the model answered to each request of each item."""
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {int(line["doc_id"]): [answer for (answer,) in line["resps"]] for line in lines}


def _sample_rows(task: str, ours: dict[int, list[Any]], theirs: dict[int, list[Any]]) -> list[Row]:
    pairs = [pair for item in ours for pair in zip(ours[item], theirs[item], strict=True)]
    if isinstance(pairs[0][0], str):
        equal = sum(a == b for a, b in pairs)
        return [Row(f"{task}: equal texts", equal, f"of {len(pairs)}")]
    apart = max(abs(float(a[0]) - float(b[0])) for a, b in pairs)
    relative = max(abs(float(a[0]) - float(b[0])) / max(1.0, abs(float(b[0]))) for a, b in pairs)
    greedy = sum(str(a[1]) == str(b[1]) for a, b in pairs)
    return [
        Row(f"{task}: largest difference of log likelihoods", apart, "nat"),
        Row(f"{task}: the same, relative", relative, ""),
        Row(f"{task}: equal greedy flags", greedy, f"of {len(pairs)}"),
    ]
