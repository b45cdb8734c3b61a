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
        self._planned: dict[int, int] = {}  # arrival -> tokens in the step being planned

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
        self._planned.clear()
        self._plan_decodes()
        self._plan_prompts()
        self._admit()
        planned = self._planned
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
                for token in result.tokens:
                    sequence.tokens.append(token)
                    self._finish_if_ended(sequence, token)
            if result.tokens or result.error is not None:
                progress.append(Progress(sequence, result.tokens, sequence.finish_reason))
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

    @property
    def _budget(self) -> int:
        """Tokens that the step being planned may still take."""
        return self._config.step_token_budget - sum(self._planned.values())

    def _plan_decodes(self) -> None:
        """One token for every running request that waits for just one."""
        index = 0
        while index < len(self.running):  # preemption takes from the end
            sequence = self.running[index]
            if sequence.pending == 1 and self._make_room(sequence, 1):
                self._plan(sequence, 1)
            index += 1

    def _plan_prompts(self) -> None:
        """Go on reading prompts, oldest first, as far as budget and pages last."""
        index = 0
        while index < len(self.running) and (budget := self._budget):
            sequence = self.running[index]
            if sequence.pending > 1:
                count = min(budget, sequence.pending, self._make_room(sequence, 1))
                if count:
                    self._plan(sequence, count)
            index += 1

    def _admit(self) -> None:
        """Start waiting requests while budget, places and pages for their whole context last.

        Their pages are taken chunk by chunk: those promised to earlier prompts, still being read, are set
        aside, and one page of growth for each running request, so that a newcomer is not put back at once.
        """
        promised = sum(self._pages_for(len(s.tokens)) - len(s.pages) for s in self.running)
        while self.waiting and len(self.running) < self._config.max_running and (budget := self._budget):
            sequence = self.waiting[0]
            promised += self._pages_for(len(sequence.tokens))
            if self.running and promised + len(self.running) > self.pages.free:
                return
            self.waiting.popleft()
            self.running.append(sequence)
            self._plan(sequence, min(budget, sequence.pending))
            promised -= len(sequence.pages)

    def _make_room(self, sequence: Sequence, count: int) -> int:
        """How many tokens more there are pages for, `count` at least, or 0.

        Pages are taken from the youngest. A decoding request that is the youngest itself gives way; a prompt
        keeps what it has read and waits.
        """
        while (room := self._room(sequence)) < count:
            victim = self.running[-1]
            if victim is sequence and sequence.pending > 1:
                return 0
            self._preempt(victim)
            if victim is sequence:
                return 0
        return room

    def _room(self, sequence: Sequence) -> int:
        pages = self.pages.free + len(sequence.pages)
        return pages * self._config.page_size - sequence.computed

    def _plan(self, sequence: Sequence, count: int) -> None:
        """Put `count` tokens into the step and take the pages they need, which are free."""
        need = self._pages_for(sequence.computed + count) - len(sequence.pages)
        sequence.pages += self.pages.take(need)
        self._planned[sequence.arrival] = count

    def _preempt(self, sequence: Sequence) -> None:
        """Take the pages of the youngest running request and put it back at the head of the queue.

        Its tokens are kept. It is older than all that wait: requests are admitted in order of arrival.
        """
        self.running.remove(sequence)
        self._planned.pop(sequence.arrival, None)
        self._release(sequence)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pages.give_back(sequence.pages)
        sequence.pages = []
        sequence.computed = 0

    def _row(self, sequence: Sequence, count: int) -> Row:
        start = sequence.computed
        draws: tuple[Draw, ...] = ()
        if start + count == len(sequence.tokens):
            request, tokens = sequence.request, sequence.tokens
            prompt_tokens = sequence.prompt_tokens
            draws = (Draw(request.params, sequence.seed, len(tokens) - prompt_tokens, tokens, prompt_tokens),)
        return Row(sequence, sequence.tokens[start : start + count], start, tuple(sequence.pages), draws)

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self._config.page_size)
