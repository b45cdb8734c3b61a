"""The order of rows in a flat batch, and which way attention takes for each."""

from __future__ import annotations

from collections.abc import Iterable

from inference.engine.step import Row

_FEW_TOKENS = 16  # always absorbed: decoding and checking drafts give the same bits
_MANY_TOKENS = 128  # always expanded: making keys and values of any context pays
_CONTEXT_RATIO_MAX = 4  # between them: how much older context a new token may have expanded for it


def arrange(rows: Iterable[Row]) -> list[Row]:
    """`rows` with those of few new tokens first, else in their order."""
    return sorted(rows, key=is_long)


def is_long(row: Row) -> bool:
    """Whether keys and values are to be made from the row's latents, instead of bringing queries to them.

    Making them costs about as many products as 170 absorbed queries that see the whole context
    (`(nope + value) · L` against `2 L + R − query − value` for each pair of a query and a position), and
    nothing on top for the row's own tokens, which meet the same matrices absorbed or expanded. It depends on
    the row alone, so a row is computed one way in any batch.
    """
    new = len(row.tokens)
    if new <= _FEW_TOKENS or new >= _MANY_TOKENS:
        return new > _FEW_TOKENS
    return row.start <= _CONTEXT_RATIO_MAX * new
