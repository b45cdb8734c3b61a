"""Log probabilities in the two spellings of the wire: chat's list of tokens, completions' parallel lists."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, Protocol

from inference.engine.types import TokenLogprob

_LEAST = -9999.0  # JSON has no infinity


class TokenNames(Protocol):
    """What is needed of a tokenizer."""

    def token_name(self, token_id: int) -> tuple[str, bytes]:
        """How a token is shown, and the bytes it stands for."""


class ChatLogprobs:
    """``logprobs`` of chat choices: an object a token."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names

    def wire(self, tokens: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        """The object for some consecutive tokens."""
        content = [
            self._entry(one.token_id, one.logprob)
            | {"top_logprobs": [self._entry(token, logprob) for token, logprob in one.top]}
            for one in tokens
            if one is not None
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        name, data = self._names.token_name(token)
        return {"token": name, "logprob": max(logprob, _LEAST), "bytes": list(data)}


class CompletionLogprobs:
    """``logprobs`` of one completion choice; offsets go on from call to call, in characters of its text.

    The chosen token is always among ``top_logprobs``, as OpenAI has it: one more than asked for when it is
    not one of the best. ``prompt`` are ids of tokens that were not chosen by the model, in their order.
    """

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def wire(self, tokens: Sequence[TokenLogprob | None], prompt: Sequence[int] = ()) -> dict[str, Any]:
        """The object for some consecutive tokens; the first of a prompt has none of its own (None)."""
        ids = prompt or [one.token_id for one in tokens if one is not None]
        offsets, shown = [], []
        for token in ids:
            name, data = self._names.token_name(token)
            shown.append(name)
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(data))
        return {
            "tokens": shown,
            "token_logprobs": [None if one is None else max(one.logprob, _LEAST) for one in tokens],
            "top_logprobs": [None if one is None else self._top(one) for one in tokens],
            "text_offset": offsets,
        }

    def _top(self, one: TokenLogprob) -> dict[str, float]:
        found: dict[str, float] = {}
        for token, logprob in (*one.top, (one.token_id, one.logprob)):
            found.setdefault(self._names.token_name(token)[0], max(logprob, _LEAST))
        return found


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The object for a whole answer, from those of its parts."""
    if not parts:
        return None
    whole: dict[str, Any] = {}
    for name, first in parts[0].items():
        whole[name] = [item for part in parts for item in part[name]] if isinstance(first, list) else first
    return whole
