"""From what is planned for a request to the row that the runner computes."""

from __future__ import annotations

from inference.engine.sequence import Sequence
from inference.engine.step import Draw, Row

_SCORED_TOKENS_MAX = 128  # of a prompt in a step: their logits over the vocabulary are kept at once
_UNSEEN_RATIO = 4  # drafts of a text that was missed to a larger part than one in this are poor


def chunk_limit(sequence: Sequence) -> int:
    """How many tokens of a prompt a step may read at most."""
    return min(sequence.pending, _SCORED_TOKENS_MAX) if sequence.scoring else sequence.pending


def may_draft(sequence: Sequence) -> bool:
    """Whether the next tokens may be guessed: not where a choice depends on the tokens between, and not
    where the draft module has missed much of the text.
    """
    return sequence.drafts_allowed and sequence.unseen * _UNSEEN_RATIO <= sequence.computed


def row_of(sequence: Sequence, count: int, drafting: bool) -> Row:
    """The next `count` tokens of a request; those beyond its own are drafts."""
    tokens, start = sequence.tokens, sequence.computed
    end = start + count
    if sequence.grammar is not None:
        sequence.grammar.prepare()  # not before: the queue may be long, and compiled grammars large
    if end < len(tokens):
        return Row(sequence, tokens[start:end], start, sequence.pages, (), sequence.scoring)
    request, prompt_tokens = sequence.request, sequence.prompt_tokens
    if request.embed:
        return Row(sequence, tokens[start:], start, sequence.pages, (), embed=True)
    made = len(tokens) - prompt_tokens
    params, seed, grammar, touched = request.params, sequence.seed, sequence.grammar, sequence.touched
    draft = drafting and may_draft(sequence)
    if end == len(tokens):
        draw = Draw(params, seed, made, tokens, prompt_tokens, grammar, touched)
        scores = start < prompt_tokens and sequence.scoring
        return Row(sequence, tokens[start:], start, sequence.pages, (draw,), scores, draft=draft)
    drafts = sequence.drafts[: end - len(tokens)]
    draws = [
        Draw(params, seed, made + ahead, tokens, prompt_tokens, grammar, touched)
        for ahead in range(len(drafts) + 1)
    ]
    return Row(sequence, [*tokens[start:], *drafts], start, sequence.pages, tuple(draws), draft=draft)
