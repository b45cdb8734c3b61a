"""Filling one step: which request gets how many tokens, and who gives way when pages run out."""

from __future__ import annotations

from dataclasses import dataclass

from inference.engine.prefix import PrefixCache
from inference.engine.queue import RankedList
from inference.engine.rows import chunk_limit
from inference.engine.sequence import Sequence
from inference.engine.types import EngineConfig


@dataclass(slots=True)
class Counts:
    """What has happened since the start."""

    begun: int = 0
    expired: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    queue_wait_s: float = 0.0


class Planner:
    """Works on the scheduler's queues and pages; keeps nothing from one step to the next."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        waiting: RankedList,
        running: RankedList,
        cache: PrefixCache,
        counts: Counts,
    ) -> None:
        self._config = config
        self._waiting = waiting
        self._running = running
        self._cache = cache
        self._pages = cache.pool
        self._counts = counts
        self._planned: dict[Sequence, int] = {}  # tokens in the step
        self._budget = 0  # tokens that it may still take
        self._reading: list[Sequence] = []

    def plan(self, now_s: float, *, drafting: bool) -> dict[Sequence, int]:
        """Tokens per request, for which pages are taken. A count beyond a request's tokens means drafts."""
        self._planned = {}
        self._budget = self._config.step_token_budget
        self._part_tiers()
        self._plan_decodes()
        if drafting:
            self._plan_drafts()
        self._plan_prompts()
        self._admit(now_s)
        return self._planned

    def _part_tiers(self) -> None:
        """Put back requests that fell back to dynamic routing while others keep their profile: a step serves
        one tier. They read nothing again but what the cache has lost.
        """
        if len({sequence.tier for sequence in self._running}) > 1:
            for sequence in list(self._running):
                if sequence.tier is None:
                    self._preempt(sequence)

    def _plan_decodes(self) -> None:
        """One token for every running request that waits for just one; the others are reading prompts."""
        page_size, planned = self._config.page_size, self._planned
        self._reading = []
        for sequence in list(self._running):
            computed = sequence.computed
            if len(sequence.tokens) - computed > 1:
                self._reading.append(sequence)
            elif computed < len(sequence.pages) * page_size:
                planned[sequence] = 1
                self._budget -= 1
            elif sequence in self._running and self._make_room(sequence):  # it may have been put back
                self._plan(sequence, 1)

    def _plan_drafts(self) -> None:
        """Verify drafts beside the tokens that are due, as far as budget and free pages last."""
        for sequence in list(self._planned):
            left = sequence.request.params.max_tokens - sequence.completion_tokens - 1
            count = min(len(sequence.drafts), left, self._budget, self._room(sequence) - 1)
            if count > 0:
                self._plan(sequence, count + 1)

    def _plan_prompts(self) -> None:
        """Go on reading prompts, in order of rank, as far as budget and pages last."""
        for sequence in self._reading:
            if self._budget and sequence in self._running:
                self._plan_chunk(sequence)

    def _plan_chunk(self, sequence: Sequence) -> None:
        count = min(self._budget, chunk_limit(sequence), self._make_room(sequence))
        if count:
            self._plan(sequence, count)

    def _admit(self, now_s: float) -> None:
        """Start waiting requests while budget, places and pages for their whole context last.

        Those that wait for a page about to be filled let others pass; it comes soon. One of another tier lets
        nobody pass: the running ones end, and its turn comes.
        """
        if not self._budget or not len(self._waiting):
            return
        for sequence in list(self._waiting):
            if len(self._running) and self._running[0].tier != sequence.tier:
                return
            if self._cache.held_back(sequence):
                continue
            found = self._cache.match(sequence)
            if sequence.awaits is not None:
                continue
            preempted = False
            while not self._fits(sequence, found):
                if not self._preempt_for(sequence):
                    return
                preempted = True
            self._begin(sequence, found, now_s)
            if preempted or not self._budget:  # those put back are before all that come now
                return

    def _fits(self, sequence: Sequence, found: list[int]) -> bool:
        """Whether there is a place, and pages for the whole context.

        Pages are taken chunk by chunk: those promised to prompts still being read are set aside, and one
        page of growth for each running request, so that a newcomer is not put back at once.
        """
        running = len(self._running)
        if running == 0 or running >= self._config.max_running:
            return running == 0
        pages_for = self._cache.pages_for
        promised = sum(max(pages_for(len(one.tokens)) - len(one.pages), 0) for one in self._running)
        wanted = pages_for(len(sequence.tokens)) - len(found)
        return promised + wanted + running <= self._pages.free - self._pages.idle(found)

    def _preempt_for(self, sequence: Sequence) -> bool:
        """Put back a running request of a worse priority; False when there is none."""
        victim = self._running[-1]
        if victim.rank < sequence.rank or victim.request.priority <= sequence.request.priority:
            return False
        self._preempt(victim)
        return True

    def _begin(self, sequence: Sequence, found: list[int], now_s: float) -> None:
        self._waiting.remove(sequence)
        self._cache.begin(sequence, found)
        self._running.add(sequence)
        if not sequence.begun:
            sequence.begun = True
            sequence.cached_tokens = sequence.computed
            self._counts.begun += 1
            self._counts.prompt_tokens += sequence.prompt_tokens
            self._counts.cached_tokens += sequence.cached_tokens
            self._counts.queue_wait_s += now_s - sequence.submitted_s
        self._plan_chunk(sequence)

    def _make_room(self, sequence: Sequence) -> int:
        """How many tokens more there are pages for, making room for one at least, or 0.

        Pages are taken from the highest rank. A decoding request that is of the highest rank itself gives
        way; a prompt keeps what it has read and waits.
        """
        while not (room := self._room(sequence)):
            victim = self._running[-1]
            if victim is sequence and sequence.pending > 1:
                return 0
            self._preempt(victim)
            if victim is sequence:
                return 0
        return room

    def _room(self, sequence: Sequence) -> int:
        pages = self._pages.free + len(sequence.pages)
        return pages * self._config.page_size - sequence.computed

    def _plan(self, sequence: Sequence, count: int) -> None:
        """Put `count` tokens into the step and take the pages they need, which are free."""
        self._cache.grow(sequence, sequence.computed + count)
        self._budget -= count - self._planned.get(sequence, 0)
        self._planned[sequence] = count

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running request's pages and put it back into the queue. Its tokens are kept."""
        self._running.remove(sequence)
        self._budget += self._planned.pop(sequence, 0)
        self._cache.release(sequence)
        sequence.drafts, sequence.unseen = (), 0
        if sequence.routing is not None:
            sequence.routing.restart()
        if sequence.scoring:
            sequence.scores.clear()
        self._waiting.add(sequence)
        self._counts.preemptions += 1
