"""One choice as it grows: events of the engine to pieces, and the text that was shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from inference.engine.types import TokenEvent
from inference.worker.protocol.calls import ToolCall
from inference.worker.protocol.logprobs import ChatLogprobs, CompletionLogprobs, joined
from inference.worker.protocol.pieces import Piece
from inference.worker.protocol.tools.reader import CallDelta, Delta, ToolReader


class Answer:
    """Choice ``index``. ``echo`` is shown before the completion, with the log probabilities of
    ``echo_tokens``; ``reader`` takes tool calls out of the text; ``silent`` drops what was generated.
    """

    def __init__(
        self,
        index: int,
        *,
        reader: ToolReader | None = None,
        logprobs: ChatLogprobs | CompletionLogprobs | None = None,
        echo: str = "",
        echo_tokens: Sequence[int] = (),
        silent: bool = False,
    ) -> None:
        self.index = index
        self._reader = reader
        self._logprobs = logprobs
        self._echo = echo
        self._echo_tokens = echo_tokens
        self._silent = silent
        self._plain = self._is_plain()
        self._shown: list[Delta] = []
        self._scored: list[dict[str, Any]] = []
        self.embedding: tuple[float, ...] | None = None
        self.reason: str | None = None

    def take(self, event: TokenEvent) -> Piece:
        """What an event adds."""
        if self._plain and event.finish_reason is None:
            if not event.text:
                return Piece(self.index)
            self._shown.append(event.text)
            return Piece(self.index, (event.text,))
        deltas: list[Delta] = []
        if self._echo:
            deltas.append(self._echo)
            self._echo = ""
            self._plain = self._is_plain()
        text = "" if self._silent else event.text
        if self._reader is not None:
            deltas += self._reader.feed(text)
            if event.finish_reason is not None:
                deltas += self._reader.finish()
        elif text:
            deltas.append(text)
        if event.embedding is not None:
            self.embedding = event.embedding
        self.reason = self._reason(event)
        scored = self._score(event)
        self._shown += deltas
        if scored is not None:
            self._scored.append(scored)
        return Piece(self.index, tuple(deltas), scored, self.reason)

    def _is_plain(self) -> bool:
        """Whether an event in the middle adds its text and nothing else."""
        return not (self._echo or self._silent or self._reader or self._logprobs)

    def content(self) -> str:
        """The text so far, without calls."""
        return "".join(part for part in self._shown if isinstance(part, str))

    def tool_calls(self, request_id: str) -> list[ToolCall]:
        """The calls so far."""
        calls: list[list[str]] = []
        for part in self._shown:
            if isinstance(part, CallDelta):
                if part.name is not None:
                    calls.append([part.name])
                calls[part.index].append(part.arguments)
        return [
            ToolCall(call_id(request_id, self.index, place), name, "".join(arguments))
            for place, (name, *arguments) in enumerate(calls)
        ]

    def logprobs(self) -> dict[str, Any] | None:
        """The log probabilities so far."""
        return joined(self._scored)

    def shown(self) -> str:
        """What a receipt's hash is over: the text, then name and arguments of each call."""
        return self.content() + "".join(call.name + call.arguments for call in self.tool_calls(""))

    def _score(self, event: TokenEvent) -> dict[str, Any] | None:
        if self._logprobs is None:
            return None
        parts = []
        if self._echo_tokens and isinstance(self._logprobs, CompletionLogprobs):
            prompt, self._echo_tokens = self._echo_tokens, ()
            parts.append(self._logprobs.wire(event.prompt_logprobs, prompt))
        if event.logprobs and not self._silent:
            parts.append(self._logprobs.wire(event.logprobs))
        return joined(parts)

    def _reason(self, event: TokenEvent) -> str | None:
        if event.finish_reason == "stop" and self._reader is not None and self._reader.calls:
            return "tool_calls"
        if event.finish_reason is not None and self._silent:
            return "length"
        return event.finish_reason


def call_id(request_id: str, choice: int, place: int) -> str:
    """The id of a tool call: the same in a stream and in a whole answer."""
    digest = hashlib.sha256(f"{request_id}/{choice}/{place}".encode()).hexdigest()
    return f"call_{digest[:24]}"
