"""The tokens whose logits a request's penalties and biases change."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter

from inference.engine.types import SamplingParams

_TOUCHING = attrgetter("logit_bias", "repetition_penalty", "presence_penalty", "frequency_penalty")
_NEUTRAL = ((), 1, 0, 0)


def is_penalised(params: SamplingParams) -> bool:
    """Whether a choice depends on the tokens before it through a penalty."""
    return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


class Touched:
    """One request's tokens that were made or are biased, each once, in the order of their first appearance;
    the prompt's too where repetition counts, which is all that it counts for.

    `tokens` are their ids, `counts` how often each was made (0: it is in the prompt alone, −1: only biased)
    and `biases` what is added to it. Kept from step to step, so that a new token costs the same however long
    the text is.
    """

    __slots__ = ("_params", "_places", "_read", "biases", "counts", "tokens")

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._begin()

    def _begin(self) -> None:
        self._read: int = 0
        self._places: dict[int, int] = {}
        self.tokens: array[int] = array("i")
        self.counts: array[float] = array("f")
        self.biases: array[float] = array("f")
        for token, bias in self._params.logit_bias:
            self.biases[self._place(token)] += bias

    @classmethod
    def of(cls, params: SamplingParams) -> Touched | None:
        """None where nothing is touched."""
        return None if _TOUCHING(params) == _NEUTRAL else cls(params)

    def read(self, text: Sequence[int], prompt_tokens: int) -> None:
        """Count the tokens of `text` that were not counted yet; its first `prompt_tokens` are the prompt."""
        if not is_penalised(self._params):
            return
        if len(text) < self._read:  # tokens were taken back
            self._begin()
        if self._read < prompt_tokens:
            if self._params.repetition_penalty != 1:
                self._see(dict.fromkeys(text[:prompt_tokens]))
            self._read = prompt_tokens
        places, counts = self._places, self.counts
        for place in range(self._read, len(text)):
            token = text[place]
            self._see((token,))
            counts[places[token]] += 1
        self._read = len(text)

    def _see(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            place = self._place(token)
            self.counts[place] = max(self.counts[place], 0)

    def _place(self, token: int) -> int:
        place = self._places.setdefault(token, len(self.tokens))
        if place == len(self.tokens):
            self.tokens.append(token)
            self.counts.append(-1)
            self.biases.append(0)
        return place
