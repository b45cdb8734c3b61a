"""An architecture is a short file: what the page on adding one says, counted."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

from inference.models import qwen3_moe

PAGE = Path(__file__).parents[3] / "docs" / "adding-an-architecture.md"
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def code_lines(source: str) -> int:
    """Lines with anything on them but docstrings and comments."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        line
        for token in tokens
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


SAMPLE = '''"""One

two."""

import os  # why

# why not

def f():
    """Three."""
    return [
        os,
    ]
'''


def test_what_counts_as_code() -> None:
    assert code_lines(SAMPLE) == 5


def test_qwen3_moe_takes_less_than_150_lines() -> None:
    count = code_lines(Path(qwen3_moe.__file__).read_text(encoding="utf-8"))
    assert count < 150
    (said,) = re.findall(
        r"`inference/models/qwen3_moe.py`: (\d+) lines of code", PAGE.read_text(encoding="utf-8")
    )
    assert count == int(said)
