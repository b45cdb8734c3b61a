"""The engine proper, synchronous and single-threaded: a step is schedule, run, record."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from collections.abc import Sequence as Items

from inference.engine.runner import Runner
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import Progress, RowResult, Step
from inference.engine.text import TextStream
from inference.engine.types import EngineConfig, EngineStats, FinishReason, GenerationRequest, TokenEvent

_log = logging.getLogger(__name__)


class Engine:
    """Requests in, one step after the other, token events out."""

    def __init__(
        self, *, config: EngineConfig, runner: Runner, eos_ids: Collection[int], token_bytes: Items[bytes]
    ) -> None:
        self._config = config
        self._runner = runner
        self._scheduler = Scheduler(config, eos_ids)
        self._token_bytes = token_bytes
        self._eos_ids = frozenset(eos_ids)
        self._requests: dict[str, tuple[Sequence, TextStream]] = {}
        self._arrivals = self._steps = self._generated = 0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def submit(self, request: GenerationRequest) -> None:
        """Queue a checked request."""
        seed = secrets.randbits(64) if request.params.seed is None else request.params.seed
        sequence = Sequence(request, self._arrivals, seed)
        self._arrivals += 1
        self._requests[request.request_id] = sequence, TextStream(self._token_bytes, request.params.stop)
        self._scheduler.add(sequence)

    def cancel(self, request_id: str) -> None:
        """Forget a request and free its pages; one that has ended already is no error."""
        if request_id in self._requests:
            sequence, _ = self._requests.pop(request_id)
            self._scheduler.finish(sequence, "cancelled")

    def end_all(self, reason: FinishReason) -> list[TokenEvent]:
        """End every request now, each with a last event, and start from an empty schedule."""
        self._scheduler = Scheduler(self._config, self._eos_ids)
        sequences = [sequence for sequence, _ in self._requests.values()]
        return [self._event(Progress(sequence, (), reason)) for sequence in sequences]

    def step(self) -> list[TokenEvent]:
        """Compute one batch. Failures of single requests become their last events."""
        step = self._scheduler.schedule()
        progress = self._scheduler.record(step, self._run(step))
        self._steps += 1
        return [self._event(one) for one in progress]

    def stats(self) -> EngineStats:
        scheduler = self._scheduler
        return EngineStats(
            running=len(scheduler.running),
            queued=len(scheduler.waiting),
            pages_total=scheduler.pages.total,
            pages_free=scheduler.pages.free,
            generated_tokens=self._generated,
            steps=self._steps,
            max_running=self._config.max_running,
        )

    def _run(self, step: Step) -> list[RowResult]:
        """Run the batch; when that fails, run its rows alone, so that only the guilty ones fail."""
        if not step.rows:
            return []
        try:
            results = self._runner.run(step)
        except Exception:
            _log.exception("a step of %d rows failed; its rows run alone", len(step.rows))
            results = [self._run_alone(Step((row,))) for row in step.rows]
        for row, result in zip(step.rows, results, strict=True):
            if result.error is not None:
                _log.error("request %s failed: %s", row.sequence.request.request_id, result.error)
                self._runner.scrub(row.pages)
        return results

    def _run_alone(self, step: Step) -> RowResult:
        try:
            return self._runner.run(step)[0]
        except Exception as error:
            _log.exception("request %s failed", step.rows[0].sequence.request.request_id)
            return RowResult(error=f"{type(error).__name__}: {error}")

    def _event(self, progress: Progress) -> TokenEvent:
        """Advance a request's text; a stop string found in it ends the request."""
        sequence, tokens, reason = progress
        request = sequence.request
        _, stream = self._requests[request.request_id]
        text, stopped = "", False
        for token in tokens:
            self._generated += 1
            if token not in self._eos_ids:
                text, stopped = stream.push(token)
        if reason is not None and not stopped:
            rest, stopped = stream.flush()
            text += rest
        if stopped:
            if reason is None:
                self._scheduler.finish(sequence, "stop")
            reason = "stop"
        if reason is not None:
            del self._requests[request.request_id]
        return TokenEvent(
            request_id=request.request_id,
            text=text,
            token_ids=tokens,
            finish_reason=reason,
            prompt_tokens=sequence.prompt_tokens,
            cached_tokens=0,
            completion_tokens=sequence.completion_tokens,
        )
