"""Infilling tasks cut from held-out functions: one whole line, the rest of a line, or several lines."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from inference.train.corpus import SourceText
from inference.train.fim import Infill
from inference.train.seeds import seeded

TaskKind = Literal["line", "rest of line", "lines"]
KINDS: tuple[TaskKind, ...] = ("line", "rest of line", "lines")
_PREFIX_CHARACTERS, _SUFFIX_CHARACTERS = 1500, 700


@dataclass(frozen=True, slots=True)
class InfillTask:
    """One hole in a held-out file; correct when filled as in the original but for trailing white space."""

    file: str
    kind: TaskKind
    infill: Infill


def infill_tasks(texts: Sequence[SourceText], *, per_kind: int, seed: int = 11) -> list[InfillTask]:
    """`per_kind` tasks of each kind, drawn from the bodies of the functions in `texts`."""
    rng = seeded(seed)
    bodies = [
        (source, first, last)
        for source in texts
        if source.name.endswith(".py")
        for first, last in _bodies(source)
    ]
    rng.shuffle(bodies)
    tasks: list[InfillTask] = []
    for kind in KINDS:
        made = (_task(source, first, last, kind, rng) for source, first, last in bodies)
        found = [task for task in made if task is not None]
        tasks += found[:per_kind]
    return tasks


def _bodies(source: SourceText) -> Iterator[tuple[int, int]]:
    """First and last line (0-based, inclusive) of each function body after its docstring."""
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and body[-1].end_lineno is not None:
                yield body[0].lineno - 1, body[-1].end_lineno - 1


def _task(source: SourceText, first: int, last: int, kind: TaskKind, rng: random.Random) -> InfillTask | None:
    lines = source.text.split("\n")
    height = rng.randint(2, 4) if kind == "lines" else 1
    starts = [
        line for line in range(first, last - height + 2)
        if all(text.strip() and not text.strip().startswith("#") for text in lines[line : line + height])
    ]  # fmt: skip
    if not starts:
        return None
    line = rng.choice(starts)
    offset = sum(len(text) + 1 for text in lines[:line])
    indent = len(lines[line]) - len(lines[line].lstrip())
    start = offset + indent
    end = offset + sum(len(text) + 1 for text in lines[line : line + height]) - 1
    if kind == "rest of line":
        start += rng.randint(1, max(1, end - start - 1))
    prefix = source.text[max(0, start - _PREFIX_CHARACTERS) : start]
    suffix = source.text[end : end + _SUFFIX_CHARACTERS]
    return InfillTask(source.name, kind, Infill(prefix, source.text[start:end], suffix))
