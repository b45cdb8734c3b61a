"""Grouping rows so that their attention can be computed in few rectangles with little padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inference.engine.step import Row

_PADDED_RATIO_MAX = 1.3  # padded area over needed area of a group
_FREE_AREA = 1024  # (new tokens × context) that costs about as much as one more group
_PIECE_TOKENS = 128  # early tokens of a long chunk need not look over the context of late ones


def pack_rows(rows: Iterable[Row]) -> list[list[Row]]:
    """All rows, long ones in pieces, in groups of similar numbers of new tokens and context lengths.

    Decoding rows never mix with others.
    """
    pieces = [piece for row in rows for piece in _pieces(row)]
    decoding = sorted((piece for piece in pieces if len(piece.tokens) == 1), key=_area)
    reading = sorted((piece for piece in pieces if len(piece.tokens) > 1), key=_area)
    return _packed(decoding) + _packed(reading)


def _pieces(row: Row) -> Iterator[Row]:
    """The row in runs of tokens, of which the last keeps the draws."""
    if len(row.tokens) <= _PIECE_TOKENS:
        yield row
        return
    for first in range(0, len(row.tokens), _PIECE_TOKENS):
        tokens = row.tokens[first : first + _PIECE_TOKENS]
        draws = row.draws if first + len(tokens) == len(row.tokens) else ()
        yield Row(row.sequence, tokens, row.start + first, row.pages, draws)


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
