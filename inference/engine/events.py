"""From what a step did to a request to the event that its caller sees."""

from __future__ import annotations

from collections.abc import Collection

from inference.engine.sequence import Sequence
from inference.engine.step import Progress
from inference.engine.text import TextStream
from inference.engine.types import TokenEvent, TokenLogprob


class EventWriter:
    """Knows the requests in flight and how far the text of each has come."""

    def __init__(self, eos_ids: Collection[int]) -> None:
        self._eos_ids = frozenset(eos_ids)
        self._requests: dict[str, tuple[Sequence, TextStream]] = {}
        self.generated_tokens = 0

    def begin(self, sequence: Sequence, stream: TextStream) -> None:
        self._requests[sequence.request.request_id] = sequence, stream

    def forget(self, request_id: str) -> Sequence | None:
        """The request, which has no more events; None if it has ended already."""
        return self._requests.pop(request_id, (None, None))[0]

    def sequences(self) -> list[Sequence]:
        """The requests in flight."""
        return [sequence for sequence, _ in self._requests.values()]

    def write(self, progress: Progress) -> TokenEvent:
        """Advance a request's text. A stop string ends it with the token that completes it: the tokens
        accepted after that one are dropped.
        """
        sequence, tokens, reason, logprobs, embedding, problem = progress
        _, stream = self._requests[sequence.request.request_id]
        made = len(sequence.tokens) - sequence.prompt_tokens
        first = made == len(tokens) > 0
        text, shown, stopped = self._advance(stream, tokens)
        if shown < len(tokens):
            del sequence.tokens[shown - len(tokens) :]
            made += shown - len(tokens)
            tokens, logprobs = tokens[:shown], logprobs[:shown]
        if reason is not None and not stopped:
            rest, stopped = stream.flush()
            text += rest
        if stopped:
            reason = "stop"
        elif reason is None and sequence.grammar is not None:
            for token in tokens:
                sequence.grammar.advance(token)
        if reason is not None:
            del self._requests[sequence.request.request_id]
        self.generated_tokens += len(tokens)
        return TokenEvent(
            sequence.request.request_id,
            text,
            tokens,
            reason,
            sequence.prompt_tokens,
            sequence.cached_tokens,
            made,
            logprobs,
            _scores(sequence) if first else (),
            embedding,
            None if sequence.routing is None else sequence.routing.report,
            problem,
        )

    def _advance(self, stream: TextStream, tokens: tuple[int, ...]) -> tuple[str, int, bool]:
        """The text of tokens up to a stop string, how many they are, and whether there was one."""
        if len(tokens) == 1 and tokens[0] not in self._eos_ids:
            text, stopped = stream.push(tokens[0])
            return text, 1, stopped
        text = ""
        for count, token in enumerate(tokens, 1):
            if token in self._eos_ids:
                continue
            more, stopped = stream.push(token)
            text += more
            if stopped:
                return text, count, True
        return text, len(tokens), False


def _scores(sequence: Sequence) -> tuple[TokenLogprob | None, ...]:
    """Log probabilities of the prompt, whose first token has none."""
    return () if sequence.request.params.prompt_logprobs is None else (None, *sequence.scores)
