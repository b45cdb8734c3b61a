"""Which tokens are computed next. Pure Python: no tensors, no device, no clock.

Continuous batching with chunked prefill under one token budget. Running requests that wait for one token come
first, then their drafts, then prompts fill the rest of the budget, then waiting requests are admitted. When
pages run out, the running request of the highest rank gives up its own and is computed again later; the one
of the lowest always goes on, and a request alone fits the cache, so every request finishes.

A request's rank is the time of its arrival, moved by its priority times `aging_s`: an order that never
changes, in which a better priority overtakes those that came so much earlier, and nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Items

from inference.engine.planning import Counts, Planner
from inference.engine.prefix import PrefixCache
from inference.engine.queue import Deadlines, RankedList
from inference.engine.rows import row_of
from inference.engine.sequence import Sequence
from inference.engine.step import Progress, Row, RowResult, Step
from inference.engine.types import EngineConfig, FinishReason


class Scheduler:
    """Owns the queue, the running set and the cache pages."""

    def __init__(self, config: EngineConfig, eos_ids: Collection[int], counts: Counts | None = None) -> None:
        self._config = config
        self._page_size = config.page_size
        self._eos_ids = frozenset(eos_ids)
        self.cache = PrefixCache(pages=config.pages, page_size=config.page_size)
        self.pages = self.cache.pool
        self.waiting = RankedList()
        self.running = RankedList()
        self.counts = counts or Counts()
        self.deadlines = Deadlines()
        self._planner = Planner(
            config, waiting=self.waiting, running=self.running, cache=self.cache, counts=self.counts
        )

    @property
    def has_work(self) -> bool:
        return bool(len(self.running) or len(self.waiting))

    @property
    def load(self) -> int:
        """How many requests run in the next step, if there are pages for them."""
        return min(len(self.running) + len(self.waiting), self._config.max_running)

    @property
    def reading(self) -> bool:
        """Whether prompts are read in the next step, or may be."""
        return self.load > len(self.running) or any(one.pending > 1 for one in self.running)

    def add(self, sequence: Sequence, now_s: float = 0.0) -> None:
        """Queue a request. It must fit the cache alone."""
        request = sequence.request
        longest = sequence.prompt_tokens + (0 if request.embed else request.params.max_tokens)
        if self.cache.pages_for(longest) > self.pages.total:
            raise RuntimeError(f"{longest} tokens can never fit {self.pages.total} pages")
        sequence.submitted_s = now_s
        sequence.rank = (now_s + request.priority * self._config.aging_s, sequence.arrival)
        self.waiting.add(sequence)
        self.deadlines.add(sequence)

    def expire(self, now_s: float) -> list[Progress]:
        """End the requests that have not begun in time."""
        late = self.deadlines.pop(now_s)
        for sequence in late:
            self.finish(sequence, "expired")
        self.counts.expired += len(late)
        return [Progress(sequence, (), "expired") for sequence in late]

    def schedule(self, now_s: float = 0.0, *, drafting: bool = False) -> Step:
        """Choose the next step's rows and take the pages they need. Drafts are verified while `drafting`, and
        the draft module reads along unless none of the rows may ever draft.
        """
        planned = self._planner.plan(now_s, drafting=drafting)
        drafting = drafting and any(one.drafts_allowed for one in planned)
        rows = [row_of(one, planned[one], drafting) for one in self.running if one in planned]
        return Step(tuple(rows), drafting)

    def record(self, step: Step, results: Items[RowResult]) -> list[Progress]:
        """Take in a step's results: append tokens, finish what has ended, let full pages be found."""
        return [
            progress
            for row, result in zip(step.rows, results, strict=True)
            if (progress := self._record_row(row, result, step.drafting)) is not None
        ]

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Take a request out, wherever it is; its pages are free at once."""
        sequence.finish_reason = reason
        self.deadlines.remove(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self.cache.release(sequence, spoiled=reason == "error")
        else:
            self.waiting.remove(sequence)

    def check(self) -> None:
        """Raise `RuntimeError` unless all books agree."""
        self.cache.check(list(self.running))
        for queue in (self.running, self.waiting):
            ranks = [sequence.rank for sequence in queue]
            if ranks != sorted(set(ranks)):
                raise RuntimeError("a queue is out of order")
        if any(len(one.pages) or one.computed for one in self.waiting):
            raise RuntimeError("a waiting request has pages")

    def _record_row(self, row: Row, result: RowResult, drafting: bool) -> Progress | None:
        sequence = row.sequence
        if result.error is not None:
            self.finish(sequence, "error")
            return Progress(sequence, (), "error")
        if result.stuck is not None:
            self.finish(sequence, "stuck")
            return Progress(sequence, (), "stuck", problem=result.stuck)
        tokens, reason = self._accept(sequence, result.tokens)
        drawn = len(row.draws)
        computed = row.start + len(row.tokens) - drawn + len(tokens)
        if not drafting:
            self.cache.miss(sequence, computed)
        sequence.computed, sequence.drafts = computed, result.drafts
        if computed // self._page_size > sequence.published:
            self.cache.publish(sequence)
        if row.scores:
            sequence.scores += result.scores
        if drawn > 1:
            self.counts.drafted_tokens += drawn - 1
            self.counts.accepted_tokens += len(result.tokens) - 1
        if row.embed:
            reason = "stop"
        if reason is not None:
            self.finish(sequence, reason)
        if not tokens and reason is None:
            return None
        logprobs = result.logprobs and result.logprobs[: len(tokens)]
        return Progress(sequence, tokens, reason, logprobs, result.embedding)

    def _accept(
        self, sequence: Sequence, tokens: tuple[int, ...]
    ) -> tuple[tuple[int, ...], FinishReason | None]:
        """Append tokens up to the one that ends the request, if one does."""
        params = sequence.request.params
        for count, token in enumerate(tokens, 1):
            sequence.tokens.append(token)
            if token in self._eos_ids and not params.ignore_eos:
                return tokens[:count], "stop"
            if len(sequence.tokens) - sequence.prompt_tokens >= params.max_tokens:
                return tokens[:count], "length"
        return tokens, None
