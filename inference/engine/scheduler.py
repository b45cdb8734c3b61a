"""Which tokens are computed next. Pure Python: no tensors, no device, no clock.

Continuous batching with chunked prefill under one token budget. Running requests that wait for one token come
first, then prompts in order of arrival fill the rest of the budget, then waiting requests are admitted. When
pages run out, the youngest running request gives up its own and is computed again later; the oldest one
always goes on, and a request alone fits the cache, so every request finishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from collections.abc import Sequence as Items

from inference.engine.pages import PageAllocator
from inference.engine.sequence import Sequence
from inference.engine.step import Draw, Progress, Row, RowResult, Step
from inference.engine.types import EngineConfig, FinishReason


class Scheduler:
    """Owns the queue, the running set and the cache pages."""

    def __init__(self, config: EngineConfig, eos_ids: Collection[int]) -> None:
        self._config = config
        self._eos_ids = frozenset(eos_ids)
        self.pages = PageAllocator(config.pages)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of arrival

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a request. It must fit the cache alone."""
        longest = sequence.prompt_tokens + sequence.request.params.max_tokens
        if self._pages_for(longest) > self.pages.total:
            raise RuntimeError(f"{longest} tokens can never fit {self.pages.total} pages")
        self.waiting.append(sequence)

    def schedule(self) -> Step:
        """Choose the next step's rows and take the pages they need."""
        planned: dict[int, int] = {}  # arrival -> number of tokens
        self._plan_decodes(planned)
        budget = self._config.step_token_budget - len(planned)
        budget, starved = self._plan_prompts(planned, budget)
        if not starved:
            self._admit(planned, budget)
        return Step(tuple(self._row(s, planned[s.arrival]) for s in self.running if s.arrival in planned))

    def record(self, step: Step, results: Items[RowResult]) -> list[Progress]:
        """Take in a step's results: append tokens, finish what has ended, free its pages."""
        progress: list[Progress] = []
        for row, result in zip(step.rows, results, strict=True):
            sequence = row.sequence
            if result.error is not None:
                self.finish(sequence, "error")
            else:
                sequence.computed = row.end
                if result.token is not None:
                    sequence.tokens.append(result.token)
                    self._finish_if_ended(sequence, result.token)
            if result.token is not None or result.error is not None:
                progress.append(Progress(sequence, result.token, sequence.finish_reason))
        return progress

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Take a request out, wherever it is; its pages are free at once."""
        sequence.finish_reason = reason
        self._release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def _finish_if_ended(self, sequence: Sequence, token: int) -> None:
        if token in self._eos_ids:
            self.finish(sequence, "stop")
        elif sequence.completion_tokens >= sequence.request.params.max_tokens:
            self.finish(sequence, "length")

    def _plan_decodes(self, planned: dict[int, int]) -> None:
        """One token for every running request that waits for just one."""
        index = 0
        while index < len(self.running):  # preemption removes from the end, never what was planned
            sequence = self.running[index]
            if sequence.pending == 1 and self._reserve(sequence, 1):
                planned[sequence.arrival] = 1
            index += 1

    def _plan_prompts(self, planned: dict[int, int], budget: int) -> tuple[int, bool]:
        """Go on reading prompts; returns the budget left and whether one of them found no page."""
        index, starved = 0, False
        while index < len(self.running) and budget:
            sequence = self.running[index]
            if sequence.pending > 1:
                count = self._reserve_chunk(sequence, min(budget, sequence.pending), planned)
                starved = starved or not count
                if count:
                    planned[sequence.arrival] = count
                    budget -= count
            index += 1
        return budget, starved

    def _admit(self, planned: dict[int, int], budget: int) -> None:
        """Start waiting requests while budget, places and pages for their whole context last.

        Their pages are taken chunk by chunk: those promised to earlier prompts, still being read, are set
        aside, and one page of growth for each running request, so that a newcomer is not put back at once.
        """
        promised = sum(self._pages_for(len(s.tokens)) - len(s.pages) for s in self.running)
        while self.waiting and budget and len(self.running) < self._config.max_running:
            sequence = self.waiting[0]
            promised += self._pages_for(len(sequence.tokens))
            if self.running and promised + len(self.running) > self.pages.free:
                return
            self.waiting.popleft()
            self._insert_running(sequence)
            count = min(budget, sequence.pending)
            self._take(sequence, count)
            promised -= len(sequence.pages)
            planned[sequence.arrival] = count
            budget -= count

    def _insert_running(self, sequence: Sequence) -> None:
        index = len(self.running)
        while index and self.running[index - 1].arrival > sequence.arrival:
            index -= 1
        self.running.insert(index, sequence)

    def _reserve_chunk(self, sequence: Sequence, count: int, planned: dict[int, int]) -> int:
        """Pages for up to `count` more tokens of a prompt; returns for how many. Takes from younger prompts
        if none.
        """
        while True:
            room = (self.pages.free + len(sequence.pages)) * self._config.page_size - sequence.computed
            if room > 0:
                count = min(count, room)
                self._take(sequence, count)
                return count
            victim = self.running[-1]
            if victim.arrival <= sequence.arrival or victim.arrival in planned:
                return 0
            self._preempt(victim)

    def _reserve(self, sequence: Sequence, count: int) -> bool:
        """Pages for `count` more tokens, taken from the youngest if need be; False when that is `sequence`
        itself.
        """
        need = self._pages_for(sequence.computed + count) - len(sequence.pages)
        while need > self.pages.free:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        self._take(sequence, count)
        return True

    def _take(self, sequence: Sequence, count: int) -> None:
        need = self._pages_for(sequence.computed + count) - len(sequence.pages)
        if need > 0:
            sequence.pages += self.pages.take(need)

    def _preempt(self, sequence: Sequence) -> None:
        """Give up a running request's pages and put it back in the queue, by arrival; its tokens are kept."""
        self.running.remove(sequence)
        self._release(sequence)
        index = 0
        while index < len(self.waiting) and self.waiting[index].arrival < sequence.arrival:
            index += 1
        self.waiting.insert(index, sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pages.give_back(sequence.pages)
        sequence.pages = []
        sequence.computed = 0

    def _row(self, sequence: Sequence, count: int) -> Row:
        start = sequence.computed
        draw = None
        if start + count == len(sequence.tokens):
            params = sequence.request.params
            draw = Draw(params.temperature, params.top_p, sequence.seed, sequence.completion_tokens)
        tokens = tuple(sequence.tokens[start : start + count])
        return Row(sequence, tokens, start, tuple(sequence.pages), draw)

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self._config.page_size)
