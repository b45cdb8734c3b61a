"""What is known of one request while it is served, and becomes its journal entry."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from inference.engine.types import FinishReason, TokenEvent
from inference.worker.metrics import WorkerMetrics
from inference.worker.protocol.calls import Endpoint
from inference.worker.protocol.usage import Usage
from inference.worker.times import now_ms


@dataclass(slots=True)
class Flight:
    """One request in flight; counts are the engine's totals so far.

    Until the first event nothing has been produced and all counts are 0: who leaves the queue pays nothing.
    """

    request_id: str
    endpoint: Endpoint
    received_at_ms: int
    task: asyncio.Task[Any]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: FinishReason | None = None
    first_token_at_ms: int | None = None
    cause: str | None = None
    sealed: bool = False
    _digest: Any = field(default_factory=hashlib.sha256)
    _latest_s: float = field(default_factory=time.perf_counter)

    def interrupt(self, cause: str) -> None:
        """End generation now; does nothing once it has ended."""
        if self.cause is None and not self.sealed:
            self.cause = cause
            self.task.cancel()

    def record(self, event: TokenEvent, metrics: WorkerMetrics) -> None:
        """Take in what one engine step brought."""
        now_s = time.perf_counter()
        if event.token_ids:
            histogram = metrics.between_tokens_s
            if self.first_token_at_ms is None:
                self.first_token_at_ms = now_ms()
                histogram = metrics.first_token_s
            histogram.observe(now_s - self._latest_s)
            self._latest_s = now_s
        self.prompt_tokens = event.prompt_tokens
        self.cached_tokens = event.cached_tokens
        self.completion_tokens = event.completion_tokens
        self.finish_reason = event.finish_reason
        self._digest.update(event.text.encode())

    def seal(self, default: FinishReason) -> FinishReason:
        """Generation is over, with ``default`` unless the engine gave a reason. No interrupt from now on."""
        self.sealed = True
        self.finish_reason = self.finish_reason or default
        return self.finish_reason

    def usage(self) -> Usage:
        """The counts as the client sees them."""
        return Usage(self.prompt_tokens, self.cached_tokens, self.completion_tokens)

    def entry_fields(self) -> dict[str, Any]:
        """The fields of the journal entry that this request determines."""
        return {
            "request_id": self.request_id,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "finish_reason": self.finish_reason,
            "received_at_ms": self.received_at_ms,
            "first_token_at_ms": self.first_token_at_ms,
            "finished_at_ms": now_ms(),
            "output_sha256": self._digest.hexdigest(),
        }
