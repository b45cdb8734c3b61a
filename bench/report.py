"""What every bench ends with: a table on the screen and `build/bench/NAME.json` with the same rows.

A row compares one figure with a peer measured in the same run and with the limit of the machine, where
there are any.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

FOLDER = Path("build/bench")
_FILE_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `ratio` is how many times better than the peer, `fraction` how much of the limit is met."""

    metric: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    limit: float | None = None
    fraction: float | None = None


def compare(
    metric: str,
    value: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    limit: float | None = None,
    lower_is_better: bool = False,
) -> Row:
    """A row with ratio and fraction worked out: above 1 is better than the peer, 1 is the limit itself."""

    def times(reference: float | None) -> float | None:
        if not reference or not value:
            return None
        return reference / value if lower_is_better else value / reference

    return Row(metric, value, unit, peer, peer_value, times(peer_value), limit, times(limit))


def report(name: str, rows: Sequence[Row], *, title: str | None = None, folder: Path = FOLDER) -> Path:
    """Print `rows` and write them to `folder`/`name`.json; returns the file's path."""
    table = Table(title=title or name, title_justify="left", title_style="bold")
    for heading in ("metric", "value", "unit", "peer", "peer's", "ratio", "limit", "fraction"):
        side: Literal["left", "right"] = "left" if heading in ("metric", "unit", "peer") else "right"
        table.add_column(heading, justify=side, no_wrap=True)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}×"
        fraction = "" if row.fraction is None else f"{row.fraction:.0%}"
        table.add_row(
            row.metric,
            _shown(row.value),
            row.unit,
            row.peer or "",
            _shown(row.peer_value),
            ratio,
            _shown(row.limit),
            fraction,
        )
    console = Console()
    (console if console.is_terminal else Console(width=_FILE_WIDTH)).print(table)
    return _write(folder / f"{name}.json", [asdict(row) for row in rows])


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Replace the file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return part.replace(path)


def _shown(value: float | None) -> str:
    """Four significant digits, with separators for large numbers."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
