"""From the rows of a step to the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch

from inference.engine.step import Row
from inference.layers.batch import AttentionGroup, FlatBatch


def assemble(
    groups: Items[Items[Row]], *, page_size: int, turn_XR: torch.Tensor, dtype: torch.dtype
) -> FlatBatch:
    """The flat batch of `groups`, in their order; each group becomes one rectangle of attention.

    `turn_XR` are the rotations of all positions, `dtype` the model's.
    """
    rows = [row for group in groups for row in group]
    positions = [position for row in rows for position in range(row.start, row.end)]
    last, end = [], 0
    for row in rows:
        end += len(row.tokens)
        last += range(end - len(row.draws), end)
    attention: list[AttentionGroup] = []
    first = 0
    for group in groups:
        attention.append(_attention_group(group, first, page_size, dtype))
        first += attention[-1].count
    return FlatBatch(
        token_T=torch.tensor([token for row in rows for token in row.tokens]),
        turn_TR=turn_XR[torch.tensor(positions)],
        slot_T=torch.tensor([slot for row in rows for slot in _slots(row, page_size)]),
        groups=tuple(attention),
        last_S=torch.tensor(last, dtype=torch.int64),
    )


def _slots(row: Row, page_size: int) -> list[int]:
    """The cache places of a row's new tokens."""
    pages = row.pages
    return [
        pages[position // page_size] * page_size + position % page_size
        for position in range(row.start, row.end)
    ]


def _attention_group(rows: Items[Row], first: int, page_size: int, dtype: torch.dtype) -> AttentionGroup:
    new = max(len(row.tokens) for row in rows)
    columns = -(-max(row.end for row in rows) // page_size)
    pages_BP = torch.tensor([_padded(row.pages, columns) for row in rows])
    start_B1 = torch.tensor([[row.start] for row in rows])
    length_B1 = torch.tensor([[len(row.tokens)] for row in rows])
    count = sum(len(row.tokens) for row in rows)
    offset_N = torch.arange(new)
    # Padding looks where the row's last token looks: somewhere, so that its softmax is finite.
    position_BN1 = (start_B1 + torch.minimum(offset_N, length_B1 - 1)).unsqueeze(2)
    hidden_BNS = torch.arange(columns * page_size) > position_BN1
    mask_BNS = torch.zeros(hidden_BNS.shape, dtype=dtype).masked_fill_(hidden_BNS, float("-inf"))
    if count == new * len(rows):
        return AttentionGroup(first, count, new, pages_BP, mask_BNS)
    place_T = (offset_N < length_B1).flatten().nonzero().squeeze(1)
    token_BN = torch.zeros(new * len(rows), dtype=torch.int64)
    token_BN[place_T] = torch.arange(count)
    return AttentionGroup(first, count, new, pages_BP, mask_BNS, token_BN, place_T)


def _padded(pages: Items[int], columns: int) -> list[int]:
    """`columns` page numbers; what is beyond the row's own is masked, so page 0 will do."""
    return [*pages[:columns], *([0] * (columns - len(pages)))]
