"""From logits and states to what each row of a step gets: tokens, log probabilities, an embedding."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import replace

import torch

from inference.engine.sampling import Choice, choose_tokens, prompt_logprobs
from inference.engine.sampling.grammar_source import GrammarError
from inference.engine.step import Row, RowResult
from inference.engine.types import TokenLogprob

NOT_FINITE = RowResult(error="the model returned numbers that are not finite")

Results = dict[int, RowResult]  # by arrival; rows that only read on have none


def logit_count(row: Row) -> int:
    """Of how many of a row's last tokens the logits are wanted."""
    return len(row.tokens) if row.scores else len(row.draws)


def outcomes(rows: Items[Row], logits_SV: torch.Tensor, hidden_TD: torch.Tensor) -> Results:
    """Results of the rows of a flat batch, in its order."""
    stuck = _stuck(rows)
    choices = _choices(rows, logits_SV, stuck)
    results = {
        row.sequence.arrival: accepted(row, [next(choices) for _ in row.draws]) for row in rows if row.draws
    }
    results |= stuck
    if any(row.scores for row in rows):
        _add_scores(results, rows, logits_SV)
    if any(row.embed for row in rows):
        _add_embeddings(results, rows, hidden_TD)
    return results


def accepted(row: Row, choices: Items[Choice | None]) -> RowResult:
    """Tokens are chosen from the true distribution at every place, each with its own random number; they
    count as long as the draft before them equals the choice there. So the text is the same as without drafts.
    """
    if len(choices) == 1 and (only := choices[0]) is not None and only.logprob is None:
        return RowResult((only.token,))
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    before = len(row.tokens) - len(choices)
    for place, choice in enumerate(choices):
        if place and row.tokens[before + place] != tokens[-1]:
            break
        if choice is None:
            return NOT_FINITE
        tokens.append(choice.token)
        if choice.logprob is not None:
            logprobs.append(TokenLogprob(choice.token, choice.logprob, choice.top))
    return RowResult(tuple(tokens), None, tuple(logprobs))


def _stuck(rows: Items[Row]) -> Results:
    """Results of the rows whose text can not go on in its grammar; the others are none the worse for them."""
    found: Results = {}
    for row in rows:
        try:
            for draw in row.draws:
                _ = draw.grammar and draw.grammar.mask
        except GrammarError as error:
            found[row.sequence.arrival] = RowResult(stuck=str(error))
    return found


def _choices(rows: Items[Row], logits_SV: torch.Tensor, stuck: Results) -> Iterator[Choice | None]:
    draws = [
        replace(draw, grammar=None) if row.sequence.arrival in stuck else draw
        for row in rows
        for draw in row.draws
    ]
    if len(draws) < len(logits_SV):
        places: list[int] = []
        end = 0
        for row in rows:
            end += logit_count(row)
            places += range(end - len(row.draws), end)
        logits_SV = logits_SV[places]
    return iter(choose_tokens(logits_SV, draws))


def _add_scores(results: Results, rows: Items[Row], logits_SV: torch.Tensor) -> None:
    first = 0
    for row in rows:
        sequence, count = row.sequence, logit_count(row)
        if row.scores:
            following = sequence.tokens[row.start + 1 : min(row.end + 1, sequence.prompt_tokens)]
            logits_TV = logits_SV[first : first + len(following)]
            wanted = sequence.request.params.prompt_logprobs or 0
            if logits_TV.isfinite().all():
                result = results.get(sequence.arrival, RowResult())
                scores = tuple(prompt_logprobs(logits_TV, following, wanted))
                results[sequence.arrival] = result._replace(scores=scores)
            else:
                results[sequence.arrival] = NOT_FINITE
        first += count


def _add_embeddings(results: Results, rows: Items[Row], hidden_TD: torch.Tensor) -> None:
    """The last token's state after the final norm, of length 1."""
    end = 0
    for row in rows:
        end += len(row.tokens)
        if row.embed:
            state_D = hidden_TD[end - 1].float()
            embedding = torch.nn.functional.normalize(state_D, dim=0).tolist()
            finite = bool(state_D.isfinite().all())
            results[row.sequence.arrival] = RowResult(embedding=tuple(embedding)) if finite else NOT_FINITE
