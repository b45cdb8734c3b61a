"""Guesses at the tokens after those just chosen, by the checkpoint's prediction module.

The module reads every token of the batch, rejected drafts included: what it notes of those is written over
when their places are computed again. A guess uses the random number of the token that it guesses, so that it
comes true as often as the module's distribution resembles the model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Items

import torch

from inference.engine.outcome import Results
from inference.engine.sampling import choose_tokens
from inference.engine.step import Draw, Row
from inference.layers.batch import FlatBatch
from inference.models.interface import DraftModule


def add_drafts(
    results: Results,
    rows: Items[Row],
    *,
    module: DraftModule,
    batch: FlatBatch,
    hidden_TD: torch.Tensor,
    cache: torch.Tensor,
) -> None:
    """Let the module read `rows`, the order of which is the batch's, and add its guesses to their results."""
    following: list[int] = []
    last: list[int] = []
    draws: list[Draw] = []
    guessed: list[int] = []
    for row in rows:
        first = len(following)
        following += _following(row, results)
        tokens = results[row.sequence.arrival].tokens if row.draft else ()
        if tokens:
            last.append(first + len(row.tokens) - len(row.draws) + len(tokens) - 1)
            draws.append(dataclasses.replace(row.draws[0], index=row.draws[0].index + len(tokens)))
            guessed.append(row.sequence.arrival)
    batch = dataclasses.replace(batch, last_S=torch.tensor(last, dtype=torch.int64))
    logits_SV = module.forward(batch, hidden_TD, torch.tensor(following), cache)
    for arrival, choice in zip(guessed, choose_tokens(logits_SV, draws), strict=True):
        if choice is not None:
            results[arrival] = results[arrival]._replace(drafts=(choice.token,))


def _following(row: Row, results: Results) -> list[int]:
    """The token after each token of a row; any token where there is none yet."""
    tokens = [*row.tokens[1:], 0]
    if row.draws:
        chosen = results[row.sequence.arrival].tokens
        if chosen:
            tokens[len(row.tokens) - len(row.draws) + len(chosen) - 1] = chosen[-1]
    elif row.end < len(row.sequence.tokens):
        tokens[-1] = row.sequence.tokens[row.end]
    return tokens
