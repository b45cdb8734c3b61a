"""The engine proper, synchronous and single-threaded: a step is schedule, run, record."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from collections.abc import Sequence as Items

from inference.adapters.files import AdapterError
from inference.engine.changes import Changes
from inference.engine.events import EventWriter
from inference.engine.runner import Runner
from inference.engine.sampling.grammar import GrammarFactory
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.speculation import SpeculationControl
from inference.engine.step import Progress, RowResult, Step
from inference.engine.text import TextStream
from inference.engine.types import EngineConfig, EngineStats, FinishReason, GenerationRequest, TokenEvent
from inference.routing.profile import ProfileError

_log = logging.getLogger(__name__)
_CHECK_S = 10.0  # between checks of the books: one takes a millisecond for some thousand pages


class Engine:
    """Requests in, one step after the other, token events out. `clock` counts seconds; `changes` are the
    runner's; `speculation` decides when to draft, where the runner can.
    """

    def __init__(
        self,
        *,
        config: EngineConfig,
        runner: Runner,
        eos_ids: Collection[int],
        token_bytes: Items[bytes],
        grammars: GrammarFactory | None = None,
        clock: Callable[[], float] = time.perf_counter,
        changes: Changes | None = None,
        speculation: SpeculationControl | None = None,
    ) -> None:
        self._config = config
        self._runner = runner
        self._eos_ids = frozenset(eos_ids)
        self._token_bytes = token_bytes
        self._grammars = grammars
        self._clock = clock
        self.changes = changes or Changes()
        self._refused: dict[Sequence, Progress] = {}
        self._scheduler = Scheduler(config, eos_ids)
        self._speculation = (speculation or SpeculationControl()) if runner.can_draft else None
        self._events = EventWriter(eos_ids)
        self._arrivals = self._steps = 0
        self._schedule_s = 0.0
        self._check_due_s = float("-inf")

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._refused)

    def submit(self, request: GenerationRequest) -> None:
        """Queue a checked request. One that can not be begun, as when its adapter has gone, ends with
        the next step, and nobody else with it.
        """
        seed = secrets.randbits(64) if request.params.seed is None else request.params.seed
        sequence = Sequence(request, self._arrivals, seed)
        if request.params.grammar is not None and self._grammars is not None:
            sequence.grammar = self._grammars.start(request.params.grammar)
        self._arrivals += 1
        self._events.begin(sequence, TextStream(self._token_bytes, request.params.stop))
        try:
            self.changes.begin(sequence)
            self._scheduler.add(sequence, self._clock())
        except Exception as error:
            foreseen = isinstance(error, AdapterError | ProfileError)
            _log.error("request %s is refused: %s", request.request_id, error, exc_info=not foreseen)
            self._refused[sequence] = (
                Progress(sequence, (), "refused", problem=str(error))
                if foreseen
                else Progress(sequence, (), "error")
            )

    def cancel(self, request_id: str) -> None:
        """Forget a request and free its pages; one that has ended already is no error."""
        sequence = self._events.forget(request_id)
        if sequence is None:
            return
        if self._refused.pop(sequence, None) is None:
            self._scheduler.finish(sequence, "cancelled")
        _let_go(sequence)

    def end_all(self, reason: FinishReason) -> list[TokenEvent]:
        """End every request now, each with a last event, and start from an empty schedule and cache."""
        self._begin_anew(self._scheduler.pages.in_use())
        self._refused.clear()
        return [self._event(Progress(one, (), reason)) for one in self._events.sequences()]

    def step(self) -> list[TokenEvent]:
        """Compute one batch. Failures of single requests become their last events."""
        scheduler, began = self._scheduler, self._clock()
        progress = scheduler.expire(began)
        progress += self._refused.values()
        self._refused.clear()
        speculation = self._speculation
        drafting = speculation is not None and speculation.wanted(scheduler.load, reading=scheduler.reading)
        step = scheduler.schedule(began, drafting=drafting)
        self._zero_unclean()
        scheduled = self._clock()
        results = self._run(step)
        ran = self._clock()
        if speculation is not None:
            speculation.note(step, results, ran - scheduled)
        progress += scheduler.record(step, results)
        events = [self._event(one) for one in progress]
        self._zero_unclean()
        self._steps += 1
        if not scheduler.has_work:
            self._check_idle()
        self._schedule_s += self._clock() - began - (ran - scheduled)
        return events

    def close(self) -> None:
        """No more steps: end the threads that grammars are compiled on, and the runner's processes."""
        self._runner.close()
        if self._grammars is not None:
            self._grammars.close()

    def check(self) -> None:
        """Raise `RuntimeError` unless queues, pages and keys agree."""
        self._scheduler.check()

    def stats(self) -> EngineStats:
        scheduler, counts, seconds = self._scheduler, self._scheduler.counts, self._runner.seconds
        dynamic, fixed = self.changes.touched.dynamic, self.changes.touched.fixed
        return EngineStats(
            running=len(scheduler.running),
            queued=len(scheduler.waiting),
            pages_total=scheduler.pages.total,
            pages_free=scheduler.pages.free,
            generated_tokens=self._events.generated_tokens,
            steps=self._steps,
            max_running=self._config.max_running,
            prompt_tokens=counts.prompt_tokens,
            cached_tokens=counts.cached_tokens,
            drafted_tokens=counts.drafted_tokens,
            accepted_tokens=counts.accepted_tokens,
            begun=counts.begun,
            expired=counts.expired,
            preemptions=counts.preemptions,
            queue_wait_s=counts.queue_wait_s,
            schedule_s=self._schedule_s,
            forward_s=seconds.forward,
            sample_s=seconds.sample,
            draft_s=seconds.draft,
            experts_layers=dynamic.layers,
            experts_touched=dynamic.experts,
            fixed_experts_layers=fixed.layers,
            fixed_experts_touched=fixed.experts,
        )

    def _check_idle(self) -> None:
        """Nobody is in flight: books that disagree cost the cache and no request."""
        now = self._clock()
        if now < self._check_due_s:
            return
        self._check_due_s = now + _CHECK_S
        try:
            self._scheduler.check()
        except RuntimeError:
            _log.exception("the books of the cache disagree; it begins anew")
            self._begin_anew(range(self._config.pages))

    def _begin_anew(self, pages: Iterable[int]) -> None:
        """An empty schedule and cache, in which `pages` are zeroed."""
        self._runner.scrub(pages)
        self._scheduler = Scheduler(self._config, self._eos_ids, self._scheduler.counts)

    def _event(self, progress: Progress) -> TokenEvent:
        """The event of what happened to a request, which ends where its text does."""
        event = self._events.write(progress)
        if event.finish_reason is not None and progress.finish_reason is None:
            self._scheduler.finish(progress.sequence, event.finish_reason)
        if event.finish_reason is not None:
            _let_go(progress.sequence)
        return event

    def _zero_unclean(self) -> None:
        pages = self._scheduler.pages.take_unclean()
        if pages:
            self._runner.scrub(pages)

    def _run(self, step: Step) -> list[RowResult]:
        """Run the batch; when that fails, run its rows alone, so that only the guilty ones fail."""
        if not step.rows:
            return []
        try:
            results = self._runner.run(step)
        except Exception:
            _log.exception("a step of %d rows failed; its rows run alone", len(step.rows))
            results = [self._run_alone(Step((row,), step.drafting)) for row in step.rows]
        for row, result in zip(step.rows, results, strict=True):
            if result.error is not None:
                _log.error("request %s failed: %s", row.sequence.request.request_id, result.error)
            if result.stuck is not None:  # the reason may quote the text
                _log.warning("request %s cannot go on in its grammar", row.sequence.request.request_id)
        return results

    def _run_alone(self, step: Step) -> RowResult:
        try:
            return self._runner.run(step)[0]
        except Exception as error:
            _log.exception("request %s failed", step.rows[0].sequence.request.request_id)
            return RowResult(error=f"{type(error).__name__}: {error}")


def _let_go(sequence: Sequence) -> None:
    """A request has ended, and with it its hold on an adapter."""
    if sequence.lease is not None:
        sequence.lease.release()
