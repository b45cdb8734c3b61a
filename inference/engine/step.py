"""What the scheduler asks of the runner for one step, and what it gets back.

Rows and results are made and dropped by the hundred in every step, hence tuples. Nothing here is changed
after it was made.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from inference.engine.sequence import Sequence
from inference.engine.types import FinishReason, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from inference.engine.sampling.grammar import GrammarState
    from inference.engine.sampling.touched import Touched


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose one token.

    `index` numbers the completion's tokens and, with `seed`, selects this one's random number. `tokens` are
    those of the request so far, the first `prompt_tokens` of them its prompt; `grammar` is where its text
    stands; `touched` keeps count of them for penalties (None: they are counted anew).
    """

    params: SamplingParams
    seed: int
    index: int
    tokens: Items[int] = ()
    prompt_tokens: int = 0
    grammar: GrammarState | None = None
    touched: Touched | None = None


class Row(NamedTuple):
    """Some consecutive tokens of one request: they start at position `start` of its context.

    `pages` cover positions 0 to the last new one. A token is chosen after each of the last `len(draws)`
    tokens, of which all but the first are drafts; without draws the prompt goes on. `scores` asks for the log
    probabilities of prompt tokens, `embed` for the last token's state, `draft` for guesses at what follows.
    """

    sequence: Sequence
    tokens: Items[int]
    start: int
    pages: Items[int]
    draws: tuple[Draw, ...] = ()
    scores: bool = False
    embed: bool = False
    draft: bool = False

    @property
    def end(self) -> int:
        """Context length after this step."""
        return self.start + len(self.tokens)


class Step(NamedTuple):
    """The rows of one forward pass. `drafting`: the draft module reads them too."""

    rows: tuple[Row, ...]
    drafting: bool = False


class RowResult(NamedTuple):
    """The chosen tokens (none: none was asked for), or why there are none: `error` is the engine's, `stuck`
    what the grammar says.

    Of drafts as many are accepted as were chosen, one after the other; one token more follows them.
    """

    tokens: tuple[int, ...] = ()
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    drafts: tuple[int, ...] = ()
    scores: tuple[TokenLogprob, ...] = ()
    embedding: tuple[float, ...] | None = None
    stuck: str | None = None


class Progress(NamedTuple):
    """What a step did to one request, for the front of the engine."""

    sequence: Sequence
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprob, ...] = ()
    embedding: tuple[float, ...] | None = None
    problem: str | None = None
