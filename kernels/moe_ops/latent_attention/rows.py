"""New tokens of a batch that look at paged contexts: ragged for kernels, rectangles for plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

_PADDED_RATIO_MAX = 1.3  # padded area over needed area of a rectangle
_FREE_AREA = 1024  # (new tokens × context) that costs about as much as one more rectangle


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rows computed together: `token_BN` are their tokens in the flat batch (the row's last one for padding),
    `place_X` and `token_X` where each real token stands in the rectangle and in the batch.

    `mask_BNS` is 0 where a token may look and −inf elsewhere; at least one 0 in each line.
    """

    token_BN: torch.Tensor
    pages_BP: torch.Tensor
    mask_BNS: torch.Tensor
    end_B: torch.Tensor
    place_X: torch.Tensor
    token_X: torch.Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """Tokens and chunks of their contexts: pair x is of token `token_X` and its chunk `chunk_X`. Token t is
    of row `row_T`, and its first pair is `first_T`. All int32.
    """

    token_X: torch.Tensor
    chunk_X: torch.Tensor
    first_T: torch.Tensor
    row_T: torch.Tensor


@dataclass(frozen=True)
class PagedRows:
    """Row b: tokens `first_B` to `first_B + count_B` of the flat batch, the last of them at context length
    `end_B`, on the pages `pages_BP` (padded with any). All int32.
    """

    pages_BP: torch.Tensor
    first_B: torch.Tensor
    count_B: torch.Tensor
    end_B: torch.Tensor

    @classmethod
    def build(
        cls, *, pages: Sequence[Sequence[int]], counts: Sequence[int], ends: Sequence[int], page_size: int
    ) -> PagedRows:
        """Rows whose tokens follow each other in the flat batch, from its first token on."""
        columns = -(-max(ends) // page_size)
        table = np.zeros((len(pages), columns), dtype=np.int32)
        for row, known in zip(table, pages, strict=True):
            used = min(len(known), columns)
            row[:used] = known[:used]
        count = np.array(counts, dtype=np.int32)
        first = np.cumsum(count, dtype=np.int32) - count
        end = np.array(ends, dtype=np.int32)
        return cls(*(torch.from_numpy(part) for part in (table, first, count, end)))

    @cached_property
    def tokens(self) -> int:
        """New tokens of all rows."""
        return int(self.count_B.sum())

    @cached_property
    def most(self) -> int:
        """New tokens of the row that has most of them."""
        return int(self.count_B.max())

    def to(self, device: torch.device) -> PagedRows:
        """The same rows on `device`, which then need not be asked how many tokens there are."""
        parts = self.pages_BP, self.first_B, self.count_B, self.end_B
        moved = PagedRows(*(part.to(device) for part in parts))
        moved.__dict__.update(tokens=self.tokens, most=self.most, _home=self)
        return moved

    def pairs(self, page_size: int, chunk: int) -> Pairs:
        """All pairs of a token and a chunk, made once: the layers of a step share them."""
        made: dict[int, Pairs] = self.__dict__.setdefault("_pairs", {})
        if chunk not in made:
            made[chunk] = self._make_pairs(page_size, chunk)
        return made[chunk]

    def _make_pairs(self, page_size: int, chunk: int) -> Pairs:
        """Those with positions to see, counted on the host."""
        home: PagedRows = self.__dict__.get("_home", self)
        count, end = home.count_B.numpy(), home.end_B.numpy()
        row_T = np.repeat(np.arange(len(count)), count)
        offset_T = np.arange(len(row_T)) - home.first_B.numpy()[row_T]
        chunks_T = -(-(end[row_T] - count[row_T] + offset_T + 1) // chunk)
        first_T = np.cumsum(chunks_T) - chunks_T
        token_X = np.repeat(np.arange(len(row_T)), chunks_T)
        chunk_X = np.arange(len(token_X)) - first_T[token_X]
        device = self.end_B.device
        return Pairs(
            *(torch.from_numpy(one.astype(np.int32)).to(device) for one in (token_X, chunk_X, first_T, row_T))
        )

    def rectangles(self, page_size: int) -> tuple[Rectangle, ...]:
        """All rows, made once: the layers of a step share them."""
        made: dict[int, tuple[Rectangle, ...]] = self.__dict__.setdefault("_rectangles", {})
        if page_size not in made:
            made[page_size] = tuple(_rectangle(self, rows, page_size) for rows in _packed(self))
        return made[page_size]


class SingleRows(PagedRows):
    """Rows of one new token each, with nothing about them known on the host."""

    @classmethod
    def of(cls, pages_BP: torch.Tensor, end_B: torch.Tensor) -> SingleRows:
        """From pages and context lengths."""
        first_B = torch.arange(len(end_B), dtype=end_B.dtype, device=end_B.device)
        rows = cls(pages_BP, first_B, torch.ones_like(end_B), end_B)
        rows.__dict__.update(tokens=len(end_B), most=1)
        return rows

    def _make_pairs(self, page_size: int, chunk: int) -> Pairs:
        """As many for each token as its pages may have: the same for any contexts."""
        chunks = -(-self.pages_BP.shape[1] * page_size // chunk)
        place_X = torch.arange(len(self.end_B) * chunks, dtype=torch.int32, device=self.end_B.device)
        token_X = place_X.div(chunks, rounding_mode="floor")
        return Pairs(token_X, place_X % chunks, self.first_B * chunks, self.first_B)


def _packed(rows: PagedRows) -> list[list[int]]:
    """Row numbers in groups of similar numbers of new tokens and context lengths."""
    counts, ends = rows.count_B.tolist(), rows.end_B.tolist()
    groups: list[list[int]] = []
    new = context = needed = 0
    for row in sorted(range(len(counts)), key=lambda row: (counts[row] > 1, counts[row] * ends[row])):
        area, wider, longer = counts[row] * ends[row], max(new, counts[row]), max(context, ends[row])
        padded = wider * longer * (len(groups[-1]) + 1) if groups else 0
        if groups and padded <= _PADDED_RATIO_MAX * (needed + area) + _FREE_AREA:
            groups[-1].append(row)
            new, context, needed = wider, longer, needed + area
        else:
            groups.append([row])
            new, context, needed = counts[row], ends[row], area
    return groups


def _rectangle(rows: PagedRows, chosen: list[int], page_size: int) -> Rectangle:
    device = rows.pages_BP.device
    row_B = torch.tensor(chosen, device=device)
    first_B1, count_B1 = rows.first_B[row_B].long().unsqueeze(1), rows.count_B[row_B].long().unsqueeze(1)
    end_B = rows.end_B[row_B].long()
    offset_N = torch.arange(int(count_B1.max()), device=device)
    columns = -(-int(end_B.max()) // page_size)
    inside_BN = torch.minimum(offset_N, count_B1 - 1)
    position_BN = end_B.unsqueeze(1) - count_B1 + inside_BN
    hidden_BNS = torch.arange(columns * page_size, device=device) > position_BN.unsqueeze(2)
    place_X = (offset_N < count_B1).flatten().nonzero().squeeze(1)
    token_BN = first_B1 + inside_BN
    return Rectangle(
        token_BN=token_BN,
        pages_BP=rows.pages_BP[row_B, :columns].long(),
        mask_BNS=torch.zeros(hidden_BNS.shape, device=device).masked_fill_(hidden_BNS, float("-inf")),
        end_B=end_B,
        place_X=place_X,
        token_X=token_BN.flatten()[place_X],
    )
