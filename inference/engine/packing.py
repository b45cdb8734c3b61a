"""Grouping rows so that their attention can be computed in few rectangles with little padding."""

from __future__ import annotations

from inference.engine.step import Row

_PADDED_RATIO_MAX = 1.3  # padded area over needed area of a group
_FREE_AREA = 1024  # (new tokens × context) that costs about as much as one more group


def pack_rows(rows: tuple[Row, ...]) -> list[list[Row]]:
    """All rows, in groups of similar numbers of new tokens and context lengths; decoding rows never mix with
    others.
    """
    decoding = sorted((row for row in rows if len(row.tokens) == 1), key=_area)
    reading = sorted((row for row in rows if len(row.tokens) > 1), key=_area)
    return _packed(decoding) + _packed(reading)


def _packed(rows: list[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = []
    new = context = needed = 0
    for row in rows:
        area, wider, longer = _area(row), max(new, len(row.tokens)), max(context, row.end)
        padded = wider * longer * (len(groups[-1]) + 1) if groups else 0
        if groups and padded <= _PADDED_RATIO_MAX * (needed + area) + _FREE_AREA:
            groups[-1].append(row)
            new, context, needed = wider, longer, needed + area
        else:
            groups.append([row])
            new, context, needed = len(row.tokens), row.end, area
    return groups


def _area(row: Row) -> int:
    return len(row.tokens) * row.end
