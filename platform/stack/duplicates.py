"""Refuse a settings file that assigns one name twice: the second would win in silence."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stack.layout import ROOT


def names_assigned(tree: ast.Module) -> Iterator[str]:
    """Every name assigned at module level; a branch counts like a line of its own."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            yield from _settings_in(target)


def _settings_in(target: ast.expr) -> Iterator[str]:
    """Upper-case names stored to, also inside a tuple; not the ``X`` of ``X["key"] = …``."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id.isupper():
            yield node.id


def duplicates_find(path: Path) -> list[str]:
    """Settings that ``path`` assigns more than once."""
    counts = Counter(names_assigned(ast.parse(path.read_text())))
    return sorted(name for name, count in counts.items() if count > 1)


def main() -> int:
    """Exit status 1 with the names when there are any."""
    path = ROOT / "platform" / "config" / "settings.py"
    duplicates = duplicates_find(path)
    for name in duplicates:
        print(f"{path.name}: {name} is assigned more than once")
    return 1 if duplicates else 0


if __name__ == "__main__":
    sys.exit(main())
