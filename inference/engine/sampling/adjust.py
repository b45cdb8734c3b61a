"""Changes to the raw logits: repetition, presence and frequency penalties, biases, grammar masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inference.engine.step import Draw


def adjusted(logits_SV: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Logits with every row's own changes, or `logits_SV` itself when no row asks for any."""
    penalised = [row for row, draw in enumerate(draws) if _has_penalty(draw)]
    biased = [row for row, draw in enumerate(draws) if draw.params.logit_bias]
    masked = [row for row, draw in enumerate(draws) if draw.grammar is not None]
    if not (penalised or biased or masked):
        return logits_SV
    changed_SV = logits_SV.clone()
    if penalised:
        _penalise_(changed_SV, penalised, draws)
    if biased:
        _bias_(changed_SV, biased, draws)
    if masked:
        _mask_(changed_SV, masked, draws)
    return changed_SV


def _has_penalty(draw: Draw) -> bool:
    params = draw.params
    return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


def _penalise_(logits_SV: torch.Tensor, rows: list[int], draws: Sequence[Draw]) -> None:
    """Repetition (Keskar et al., arXiv:1909.05858) divides positive logits of tokens seen anywhere, prompt
    included, and multiplies negative ones; then presence and frequency (OpenAI's definition) are taken off
    tokens of the completion.

    Only places that occur are touched: the work follows the length of the text, not the vocabulary.
    """
    vocabulary = logits_SV.shape[1]
    begins = [_first_counted(draws[row]) for row in rows]
    texts = [
        np.array(draws[row].tokens[begin:], dtype=np.int64) for row, begin in zip(rows, begins, strict=True)
    ]
    lengths = [len(text) for text in texts]
    made_N = np.concatenate(
        [
            np.arange(begin, begin + n) >= draws[row].prompt_tokens
            for row, begin, n in zip(rows, begins, lengths, strict=True)
        ]
    )
    place_N = np.concatenate(texts) + np.repeat(np.array(rows, dtype=np.int64) * vocabulary, lengths)
    place_U, inverse_N = np.unique(place_N, return_inverse=True)
    count_U = np.bincount(inverse_N, weights=made_N, minlength=len(place_U)).astype(np.float32)
    row_U = place_U // vocabulary
    repetition_U, presence_U, frequency_U = _strengths(draws, rows, row_U)
    at_U = torch.from_numpy(place_U).to(logits_SV.device)
    flat = logits_SV.view(-1)
    value_U = flat[at_U]
    value_U = torch.where(value_U > 0, value_U / repetition_U.to(flat), value_U * repetition_U.to(flat))
    taken_U = presence_U * torch.from_numpy(count_U > 0) + frequency_U * torch.from_numpy(count_U)
    flat[at_U] = value_U - taken_U.to(flat)


def _first_counted(draw: Draw) -> int:
    """Prompts, which may be long, count for repetition alone."""
    return 0 if draw.params.repetition_penalty != 1 else draw.prompt_tokens


def _strengths(
    draws: Sequence[Draw], rows: list[int], row_U: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Repetition, presence and frequency penalty of the request at each touched place."""
    table_3S = np.zeros((3, len(draws)), dtype=np.float32)
    for row in rows:
        params = draws[row].params
        table_3S[:, row] = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
    repetition, presence, frequency = torch.from_numpy(table_3S[:, row_U])
    return repetition, presence, frequency


def _bias_(logits_SV: torch.Tensor, rows: list[int], draws: Sequence[Draw]) -> None:
    entries = [(row, token, bias) for row in rows for token, bias in draws[row].params.logit_bias]
    at, tokens, biases = zip(*entries, strict=True)
    where = (torch.tensor(at, device=logits_SV.device), torch.tensor(tokens, device=logits_SV.device))
    logits_SV.index_put_(where, torch.tensor(biases).to(logits_SV), accumulate=True)


def _mask_(logits_SV: torch.Tensor, rows: list[int], draws: Sequence[Draw]) -> None:
    """−inf for tokens that the grammars do not allow; tokens beyond a mask are not allowed either."""
    bits_SB = np.stack([grammar.mask for row in rows if (grammar := draws[row].grammar) is not None])
    vocabulary = logits_SV.shape[1]
    allowed_SV = np.unpackbits(bits_SB, axis=1, count=vocabulary, bitorder="little")
    if allowed_SV.shape[1] < vocabulary:
        allowed_SV = np.pad(allowed_SV, ((0, 0), (0, vocabulary - allowed_SV.shape[1])))
    refused_SV = torch.from_numpy(allowed_SV == 0).to(logits_SV.device)
    if len(rows) == len(draws):
        logits_SV.masked_fill_(refused_SV, -torch.inf)
    else:
        logits_SV[rows] = logits_SV[rows].masked_fill_(refused_SV, -torch.inf)
