"""Tasks for lm_eval from files on this machine: choices, log likelihoods of given text, continuations."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_LETTERS = "ABCD"
_SEED = 20


def tasks_write(*, data: Path, folder: Path, items: int) -> list[str]:
    """Write a data file and a description for each task into `folder`; returns the tasks' names.

    `data` has `mmlu.tar.xz`, `gsm8k_test.jsonl.gz` and `HumanEval.jsonl.gz`; `items` of each are drawn,
    always the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(_SEED)  # noqa: S311 -- a sample, not a secret
    _task_write(folder, "tokenworks_mmlu", _MMLU, draw.sample(_mmlu(data / "mmlu.tar.xz"), items))
    problems = _lines(data / "gsm8k_test.jsonl.gz")
    _task_write(folder, "tokenworks_gsm8k", _GSM8K, draw.sample(problems, items))
    programs = draw.sample(_lines(data / "HumanEval.jsonl.gz"), items)
    _task_write(folder, "tokenworks_humaneval", _HUMANEVAL, programs)
    _task_write(folder, "tokenworks_continue", _CONTINUE, programs)
    return ["tokenworks_mmlu", "tokenworks_gsm8k", "tokenworks_humaneval", "tokenworks_continue"]


def _metrics(*names: str) -> list[dict[str, object]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


# lm_eval calls it perplexity; its mean is that of the log likelihoods of whole texts.
_LIKELIHOOD: list[dict[str, object]] = [
    {"metric": "perplexity", "aggregation": "mean", "higher_is_better": True},
    *_metrics("acc"),
]
_MMLU: Mapping[str, object] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": _metrics("acc", "acc_norm"),
}
_GSM8K: Mapping[str, object] = {
    "output_type": "loglikelihood",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
    "target_delimiter": " ",
    "metric_list": _LIKELIHOOD,
}
_HUMANEVAL: Mapping[str, object] = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{canonical_solution}}",
    "target_delimiter": "",
    "metric_list": _LIKELIHOOD,
}
_CONTINUE: Mapping[str, object] = {
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{canonical_solution}}",
    "target_delimiter": "",
    "generation_kwargs": {"until": ["\ndef ", "\nclass "], "do_sample": False, "max_gen_toks": 48},
    "metric_list": _metrics("exact_match"),
}


def _task_write(
    folder: Path, name: str, settings: Mapping[str, object], items: Iterable[Mapping[str, object]]
) -> None:
    """The data as lines of JSON, and the description in the YAML that JSON is part of."""
    data = folder / f"{name}.jsonl"
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    task: dict[str, object] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        **settings,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task, indent=2) + "\n", encoding="utf-8")


def _mmlu(path: Path) -> list[dict[str, object]]:
    """All questions of the test sets."""
    found: list[dict[str, object]] = []
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            file = archive.extractfile(member) if member.name.endswith("_test.csv") else None
            if file is None:
                continue
            for question, *choices, answer in csv.reader(io.TextIOWrapper(file, encoding="utf-8")):
                found.append({"question": question, "choices": choices, "answer": _LETTERS.index(answer)})
    return found


def _lines(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
