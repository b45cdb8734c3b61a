"""Columns as single parameters for statements over unnest(): ten times faster than the driver's lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def text_array(values: Iterable[str]) -> str:
    """The literal of a text[] with exactly these texts."""
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return "{" + ",".join(quoted) + "}"


def number_array(values: Iterable[int | None]) -> str:
    """The literal of a bigint[] with these numbers; None is NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def json_array(values: Iterable[Buffer]) -> str:
    """A JSON array of values that are JSON already, for jsonb_array_elements()."""
    return (b"[" + b",".join(values) + b"]").decode()
