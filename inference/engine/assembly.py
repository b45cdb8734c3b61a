"""From the rows of a step to the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch

from inference.engine.outcome import logit_count
from inference.engine.packing import is_long
from inference.engine.step import Row
from inference.layers.batch import FlatBatch, LongRow
from moe_ops.latent_attention import PagedRows


def assemble(rows: Items[Row], *, page_size: int, turn_XR: torch.Tensor) -> FlatBatch:
    """The flat batch of `rows`, which `arrange` has put in order. `turn_XR` are the rotations of all
    positions.
    """
    short = [row for row in rows if not is_long(row)]
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    last: list[int] = []
    for row in rows:
        tokens += row.tokens
        positions += range(row.start, row.end)
        slots += _slots(row, page_size)
        last += range(len(tokens) - logit_count(row), len(tokens))
    return FlatBatch(
        token_T=torch.tensor(tokens),
        turn_TR=turn_XR[torch.tensor(positions)],
        slot_T=torch.tensor(slots),
        short=_short(short, page_size) if short else None,
        long=_long(rows[len(short) :], sum(len(row.tokens) for row in short)),
        last_S=torch.tensor(last, dtype=torch.int64),
    )


def _slots(row: Row, page_size: int) -> list[int]:
    """The cache places of a row's new tokens."""
    pages, start = row.pages, row.start
    if len(row.tokens) == 1:
        return [pages[start // page_size] * page_size + start % page_size]
    return [
        pages[position // page_size] * page_size + position % page_size for position in range(start, row.end)
    ]


def _short(rows: Items[Row], page_size: int) -> PagedRows:
    return PagedRows.build(
        pages=[row.pages for row in rows],
        counts=[len(row.tokens) for row in rows],
        ends=[row.end for row in rows],
        page_size=page_size,
    )


def _long(rows: Items[Row], first: int) -> tuple[LongRow, ...]:
    found = []
    for row in rows:
        if not is_long(row):
            raise ValueError("a row of few new tokens follows one of many: the rows are not arranged")
        found.append(LongRow(first, len(row.tokens), row.start, torch.tensor(row.pages, dtype=torch.int32)))
        first += len(row.tokens)
    return tuple(found)
