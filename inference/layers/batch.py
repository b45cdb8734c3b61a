"""The tensors that all layers of one forward pass share.

Shape suffixes, here and in all layers: T tokens, D hidden, H heads, K position-free width of a query, R
rotary width, Q = K + R, V value width, L latent width, C = L + R, B rows, S context positions, P pages, Z
positions in a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from inference.routing.observer import RoutingObserver
from inference.routing.plan import RoutingPlan
from moe_ops.latent_attention import PagedRows
from moe_ops.lora import LoraBatch


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row of many new tokens: `count` of the flat batch from `first` on, at positions from `start` on.

    `pages_P` (int32) cover its context, new tokens included.
    """

    first: int
    count: int
    start: int
    pages_P: torch.Tensor


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """The tokens of all rows of a step, one after the other: first those of `short` rows, then `long` ones.

    `turn_TR` are the rotations of each token's position as complex numbers (half of R), `slot_T` the places
    in the cache that take each token's latent, `last_S` the tokens whose logits are wanted. `adapters` and
    `routing` say which tokens are computed with changed weights or fewer experts, and `observer` is shown
    every choice of experts (None: nothing of the kind).
    """

    token_T: torch.Tensor
    turn_TR: torch.Tensor
    slot_T: torch.Tensor
    short: PagedRows | None
    long: tuple[LongRow, ...]
    last_S: torch.Tensor
    adapters: LoraBatch | None = None
    routing: RoutingPlan | None = None
    observer: RoutingObserver | None = None

    def all_rows(self, page_size: int) -> Iterator[tuple[int, PagedRows]]:
        """Rows of few and of many new tokens alike, with the place of their first token: for attention that
        makes no difference between them.
        """
        if self.short is not None:
            yield 0, self.short
        for row in self.long:
            pages, end = [row.pages_P.tolist()], row.start + row.count
            rows = PagedRows.build(pages=pages, counts=[row.count], ends=[end], page_size=page_size)
            yield row.first, rows.to(self.token_T.device)

    def to(self, device: torch.device) -> FlatBatch:
        """The same batch with its tensors on `device`; `observer` stays where it is."""
        return replace(
            self,
            token_T=self.token_T.to(device),
            turn_TR=self.turn_TR.to(device),
            slot_T=self.slot_T.to(device),
            short=None if self.short is None else self.short.to(device),
            long=tuple(replace(row, pages_P=row.pages_P.to(device)) for row in self.long),
            last_S=self.last_S.to(device),
            adapters=None if self.adapters is None else self.adapters.to(device),
            routing=None if self.routing is None else self.routing.to(device),
        )
