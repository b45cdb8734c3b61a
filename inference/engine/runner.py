"""Runs one step on the model: rows to tensors, forward pass, choice of tokens. Owns the cache's memory."""

from __future__ import annotations

from itertools import chain

import torch

from inference.engine.packing import pack_rows
from inference.engine.sampler import choose_tokens
from inference.engine.step import Row, RowResult, Step
from inference.engine.types import EngineConfig
from inference.layers.batch import AttentionGroup, FlatBatch
from inference.models.deepseek import DeepseekModel

_NOTHING = RowResult()


class Runner:
    """The only part of the engine that touches tensors."""

    def __init__(self, model: DeepseekModel, config: EngineConfig) -> None:
        self._model = model
        self._page_size = config.page_size
        self._cache = model.new_cache(pages=config.pages, page_size=config.page_size)

    @torch.inference_mode()
    def run(self, step: Step) -> list[RowResult]:
        """One result per row, in the order of the step. Raises what torch raises; nothing but the cache
        changes.
        """
        groups = pack_rows(step.rows)
        rows = list(chain.from_iterable(groups))
        drawing = [row for row in rows if row.draw is not None]
        logits_SV = self._model.forward(self._flat_batch(groups, rows), self._cache)
        tokens = choose_tokens(logits_SV, [row.draw for row in drawing if row.draw is not None])
        chosen = {id(row): _result(token) for row, token in zip(drawing, tokens, strict=True)}
        return [chosen.get(id(row), _NOTHING) for row in step.rows]

    @torch.inference_mode()
    def scrub(self, pages: tuple[int, ...]) -> None:
        """Zero pages that may hold NaN: masked attention weights are 0, and 0 × NaN would reach the next
        holder.
        """
        self._cache[:, list(pages)] = 0

    def _flat_batch(self, groups: list[list[Row]], rows: list[Row]) -> FlatBatch:
        positions = [position for row in rows for position in range(row.start, row.end)]
        last, end = [], 0
        for row in rows:
            end += len(row.tokens)
            if row.draw is not None:
                last.append(end - 1)
        return FlatBatch(
            token_T=torch.tensor([token for row in rows for token in row.tokens]),
            turn_TR=self._model.turn_XR[torch.tensor(positions)],
            slot_T=torch.tensor([slot for row in rows for slot in self._slots(row)]),
            groups=tuple(self._attention_groups(groups)),
            last_S=torch.tensor(last, dtype=torch.int64),
        )

    def _slots(self, row: Row) -> list[int]:
        """The cache places of a row's new tokens."""
        size, pages = self._page_size, row.pages
        return [pages[position // size] * size + position % size for position in range(row.start, row.end)]

    def _attention_groups(self, groups: list[list[Row]]) -> list[AttentionGroup]:
        attention, first = [], 0
        for rows in groups:
            attention.append(self._attention_group(rows, first))
            first += attention[-1].count
        return attention

    def _attention_group(self, rows: list[Row], first: int) -> AttentionGroup:
        new = max(len(row.tokens) for row in rows)
        columns = -(-max(row.end for row in rows) // self._page_size)
        pages_BP = torch.tensor([_padded(row.pages, columns) for row in rows])
        start_B1 = torch.tensor([[row.start] for row in rows])
        length_B1 = torch.tensor([[len(row.tokens)] for row in rows])
        count = sum(len(row.tokens) for row in rows)
        offset_N = torch.arange(new)
        real_BN = offset_N < length_B1
        # Padding looks where the row's last token looks: some place, so that its softmax is finite.
        position_BN1 = (start_B1 + torch.minimum(offset_N, length_B1 - 1)).unsqueeze(2)
        hidden_BNS = torch.arange(columns * self._page_size) > position_BN1
        mask_BNS = torch.zeros(hidden_BNS.shape, dtype=self._model.dtype).masked_fill_(
            hidden_BNS, float("-inf")
        )
        if count == new * len(rows):
            return AttentionGroup(first, count, new, pages_BP, mask_BNS)
        place_T = real_BN.flatten().nonzero().squeeze(1)
        token_BN = torch.zeros(real_BN.numel(), dtype=torch.int64)
        token_BN[place_T] = torch.arange(count)
        return AttentionGroup(first, count, new, pages_BP, mask_BNS, token_BN, place_T)


def _padded(pages: tuple[int, ...], columns: int) -> list[int]:
    """`columns` page numbers; what is beyond the row's own is masked, so page 0 will do."""
    return [*pages[:columns], *([0] * (columns - len(pages)))]


def _result(token: int | None) -> RowResult:
    return (
        RowResult(error="the model returned numbers that are not finite")
        if token is None
        else RowResult(token)
    )
