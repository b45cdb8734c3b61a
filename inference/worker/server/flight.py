"""What is known of one request while it is served, and becomes its journal entry."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from inference.engine.types import FinishReason as EngineReason
from inference.engine.types import TokenEvent
from inference.messages import FinishReason
from inference.worker.metrics import WorkerMetrics
from inference.worker.protocol.answers import Answer
from inference.worker.protocol.calls import Call, Endpoint
from inference.worker.protocol.usage import Usage
from inference.worker.times import now_ms

CLIENT_GONE = "client_gone"
CLIENT_STALLED = "client_stalled"
# Of several choices the entry says what came of the one that fared worst.
_BY_GRAVITY: tuple[FinishReason, ...] = ("stop", "length", "cancelled", "error")
# How the journal, which knows fewer, puts the engine's words for an end.
_JOURNALLED: dict[str, FinishReason] = {
    "expired": "cancelled", "refused": "error", "stuck": "error", "lost": "error",
}  # fmt: skip


@dataclass(slots=True)
class _Counts:
    """The engine's totals so far for one choice."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latest_s: float = field(default_factory=time.perf_counter)


@dataclass(slots=True)
class Flight:
    """One request in flight, with all its choices.

    Until the first token nothing has been produced and all counts are 0: who leaves the queue pays nothing,
    be it by choice, by a deadline or because the engine ended.
    ``cause`` says why it ended early, in the engine's word or ours, and ``problem`` what a caller may be told
    of it; ``writing_since_s``: since when its client has been awaited; ``sealed``: generation is over.
    ``routing``: the fixed-routing profile that was asked for, or why its answer was routed dynamically.
    """

    request_id: str
    call: Call
    answers: Sequence[Answer]
    received_at_ms: int
    task: asyncio.Task[Any]
    finish_reason: FinishReason | None = None
    routing: str | None = None
    first_token_at_ms: int | None = None
    cause: str | None = None
    problem: str | None = None
    writing_since_s: float | None = None
    sealed: bool = False
    _counts: list[_Counts] = field(init=False)
    _open: int = field(init=False)

    def __post_init__(self) -> None:
        self._counts = [_Counts() for _ in self.answers]
        self._open = len(self.answers)

    @property
    def endpoint(self) -> Endpoint:
        """Which endpoint was called."""
        return self.call.endpoint

    @property
    def complete(self) -> bool:
        """Whether every choice has ended."""
        return not self._open

    @property
    def failed(self) -> bool:
        """Whether a choice ended without its answer: the others are of no use then."""
        return self.finish_reason in ("cancelled", "error")

    def interrupt(self, cause: str) -> None:
        """End generation now; does nothing once it has ended."""
        if self.cause is None and not self.sealed:
            self.cause = cause
            self.task.cancel()

    @property
    def abandoned(self) -> bool:
        """Whether nobody is left to be told how it ended."""
        return self.cause in (CLIENT_GONE, CLIENT_STALLED)

    def stalled(self, limit_s: float) -> bool:
        """Whether its client has not taken what there is for so long."""
        since_s = self.writing_since_s
        return since_s is not None and time.perf_counter() - since_s >= limit_s

    def record(self, index: int, event: TokenEvent, metrics: WorkerMetrics) -> None:
        """Take in what one engine step brought to a choice."""
        counts = self._counts[index]
        if event.token_ids:
            self._time(counts, len(event.token_ids), metrics)
        if event.routing is not None:
            self.routing = event.routing
        if event.token_ids or event.embedding is not None:  # else it may have left the queue or never begun
            counts.prompt_tokens = event.prompt_tokens
            counts.cached_tokens = event.cached_tokens
            # a token that was computed for its prompt's sake alone is neither shown nor charged
            counts.completion_tokens = 0 if self.call.max_tokens == 0 else event.completion_tokens
        if event.finish_reason is not None:
            self._open -= 1
            self._end(event.finish_reason, event.problem)

    def seal(self, reason: FinishReason | None = None) -> None:
        """Generation is over, and ``reason`` is what went wrong. No interrupt from now on."""
        self.sealed = True
        if reason is not None:
            self._worsen(reason)

    @property
    def begun(self) -> bool:
        """Whether the engine has computed anything for it."""
        return any(counts.prompt_tokens for counts in self._counts)

    @property
    def charged(self) -> bool:
        """Whether what was produced is to be paid for: not where we failed, nor what nobody was shown because
        the worker stopped. Text that was streamed until its grammar, which is the caller's, allowed no more
        is paid for.
        """
        match self.finish_reason:
            case "error":
                return self.cause == "stuck" and self.call.stream
            case "cancelled":
                return self.cause == CLIENT_GONE or self.call.stream
        return True

    def usage(self) -> Usage:
        """Each prompt once, whatever the number of its choices, and the completions of all; nothing where
        nothing is charged.

        Cached tokens of a prompt are those that the first of its choices found: the others find the first's.
        """
        if not self.charged:
            return Usage(0, 0, 0, self.routing)
        heads = [self._head(place) for place in range(len(self.call.prompts))]
        return Usage(
            prompt_tokens=sum(one.prompt_tokens for one in heads),
            cached_tokens=sum(one.cached_tokens for one in heads),
            completion_tokens=sum(counts.completion_tokens for counts in self._counts),
            routing=self.routing,
        )

    def entry_fields(self) -> dict[str, Any]:
        """The fields of the journal entry that this request determines."""
        usage = self.usage()
        shown = "".join(answer.shown() for answer in self.answers)
        return {
            "request_id": self.request_id,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "finish_reason": self.finish_reason,
            "received_at_ms": self.received_at_ms,
            "first_token_at_ms": self.first_token_at_ms,
            "finished_at_ms": now_ms(),
            "output_sha256": hashlib.sha256(shown.encode()).hexdigest(),
        }

    def _head(self, place: int) -> _Counts:
        """The counts of a prompt's choice that began and found least in the cache."""
        n = self.call.n
        begun = [one for one in self._counts[place * n : place * n + n] if one.prompt_tokens]
        return min(begun, key=lambda one: one.cached_tokens, default=_Counts())

    def _time(self, counts: _Counts, tokens: int, metrics: WorkerMetrics) -> None:
        now_s = time.perf_counter()
        each_s = (now_s - counts.latest_s) / tokens
        counts.latest_s = now_s
        if self.first_token_at_ms is None:
            self.first_token_at_ms = now_ms()
            metrics.first_token_s.observe(each_s)
            tokens -= 1
        metrics.between_tokens_s.observe(each_s, tokens)

    def _end(self, reason: EngineReason, problem: str | None) -> None:
        """One choice has ended."""
        if reason in _JOURNALLED and self.cause is None:
            self.cause, self.problem = reason, problem
        self._worsen(_JOURNALLED.get(reason) or cast("FinishReason", reason))

    def _worsen(self, reason: FinishReason) -> None:
        if self.finish_reason is None or _BY_GRAVITY.index(reason) > _BY_GRAVITY.index(self.finish_reason):
            self.finish_reason = reason
