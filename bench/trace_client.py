"""Sends a chat trace's requests to an engine and notes when their tokens come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from itertools import cycle, pairwise

import numpy as np

from bench.azure import ChatRequest
from inference.engine.front import EngineFront
from inference.engine.types import GenerationRequest, SamplingParams

_SETTLED = 0.15  # of a run passes before it counts
_STRIDE = 997  # tokens between the beginnings of two prompts: no prefix is shared


@dataclass(slots=True)
class Served:
    """Times of one request, in seconds: its arrival and its tokens."""

    arrived_s: float
    tokens_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """Percentiles in seconds of one engine under one load."""

    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float
    gaps: tuple[float, ...]

    @property
    def gap_mean(self) -> float:
        """Time per token, the first one of an answer aside."""
        return float(np.mean(self.gaps))

    @property
    def spread(self) -> float:
        """p99 over p50 of the intervals between tokens."""
        return self.gap_p99 / self.gap_p50


class Client:
    """Sends the trace's requests to one engine; each takes the next piece of the text as its prompt."""

    def __init__(
        self, engine: EngineFront, *, trace: Items[ChatRequest], text: tuple[int, ...], routing: str | None
    ) -> None:
        self._engine = engine
        self._trace = trace
        self._text = text
        self._routing = routing
        self._number = 0

    async def saturate(self, seconds: float) -> float:
        """Tokens a second with twice as many requests in flight as there are places."""
        until = time.perf_counter() + seconds
        requests = cycle(self._trace)

        async def keep_busy() -> list[Served]:
            return [await self._serve(one) for one in _while_before(requests, until)]

        served = await asyncio.gather(*(keep_busy() for _ in range(2 * self._engine.config.max_running)))
        settled = until - (1 - _SETTLED) * seconds
        tokens = [at for part in served for one in part for at in one.tokens_s if settled < at <= until]
        return len(tokens) / (until - settled)

    async def replay(self, tokens_s: float, seconds: float) -> Load:
        """The trace from its beginning, its clock set so that it asks for `tokens_s` tokens a second."""
        trace = self._trace
        count = self._count(tokens_s, seconds)
        pace = seconds / trace[count - 1].arrival_s
        began = time.perf_counter()

        async def at_its_time(one: ChatRequest) -> Served:
            await asyncio.sleep(began + one.arrival_s * pace - time.perf_counter())
            return await self._serve(one)

        served = await asyncio.gather(*(at_its_time(one) for one in trace[:count]))
        return summary_of([one for one in served if one.arrived_s - began > _SETTLED * seconds])

    def _count(self, tokens_s: float, seconds: float) -> int:
        """How many requests have that many tokens."""
        wanted = tokens_s * seconds
        for count, one in enumerate(self._trace, 1):
            wanted -= one.new
            if wanted <= 0 and one.arrival_s > 0:
                return count
        return len(self._trace)

    async def _serve(self, one: ChatRequest) -> Served:
        text, number = self._text, self._number
        self._number += 1
        first = number * _STRIDE % (len(text) - one.prompt)
        params = SamplingParams(max_tokens=one.new, temperature=0, ignore_eos=True)
        prompt = text[first : first + one.prompt]
        request = GenerationRequest(f"bench-{number}", prompt, params, routing=self._routing)
        served = Served(time.perf_counter())
        async for event in self._engine.generate(request):
            if event.token_ids:
                served.tokens_s.append(time.perf_counter())
        if len(served.tokens_s) != one.new:
            raise RuntimeError(f"a request ended after {len(served.tokens_s)} of {one.new} tokens")
        return served


def _while_before(requests: Iterator[ChatRequest], until: float) -> Iterator[ChatRequest]:
    for one in requests:
        if time.perf_counter() >= until:
            return
        yield one


def summary_of(served: Items[Served]) -> Load:
    gaps = [after - before for one in served for before, after in pairwise(one.tokens_s)]
    first = [one.tokens_s[0] - one.arrived_s for one in served]
    first_p50, first_p99 = np.quantile(first, (0.5, 0.99))
    gap_p50, gap_p99 = np.quantile(gaps, (0.5, 0.99))
    return Load(float(first_p50), float(first_p99), float(gap_p50), float(gap_p99), tuple(gaps))
