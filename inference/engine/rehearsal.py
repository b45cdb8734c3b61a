"""The fullest steps, before anybody is served: what they take, so that a beat is even from its first token,
and on an accelerator the programs they need, which are made when they are first used.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from inference.engine.runner import Runner, Seconds
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams

STEPS = 32
FIRST_STEPS = 3  # that make programs
LIMIT_S = 4.0
_PRIME = 7919  # texts without much repetition


def full_step_s(
    runner: Runner,
    config: EngineConfig,
    *,
    max_model_len: int,
    vocab_size: int,
    clock: Callable[[], float] = time.perf_counter,
    steps: int = STEPS,
    limit_s: float = LIMIT_S,
) -> float:
    """What nine in ten of the steps take at most whose token budget is full. All places read prompts and
    answer them as soon as they have been read, under the first profile if there is one. 0 when the cache is
    too small for such steps. So many `steps` are tried, as long as fewer than `limit_s` seconds have passed.
    """
    scheduler = Scheduler(config, ())
    for number in range(config.max_running):
        request = _request(number, runner, _length(config, max_model_len), vocab_size)
        sequence = Sequence(request, number, 0)
        runner.changes.begin(sequence)
        scheduler.add(sequence)
    taken: list[float] = []
    began = now = clock()
    while len(taken) < steps and now - began < limit_s:
        step = scheduler.schedule()
        if sum(len(row.tokens) for row in step.rows) < config.step_token_budget:
            break
        results = runner.run(step)
        before, now = now, clock()
        taken.append(now - before)
        scheduler.record(step, results)
    runner.scrub(scheduler.pages.in_use())
    runner.seconds = Seconds()  # spent on nobody
    return statistics.quantiles(taken, n=10, method="inclusive")[-1] if len(taken) > 1 else 0.0


def _length(config: EngineConfig, max_model_len: int) -> int:
    """Of a prompt: enough for all steps, as far as context and cache last."""
    wanted = -(-(STEPS + 1) * config.step_token_budget // config.max_running)
    pages = config.pages // config.max_running
    return max(min(wanted, max_model_len - STEPS, pages * config.page_size - STEPS), 1)


def _request(number: int, runner: Runner, length: int, vocab_size: int) -> GenerationRequest:
    tokens = tuple((number * length + place) * _PRIME % vocab_size for place in range(length))
    params = SamplingParams(max_tokens=STEPS, temperature=0, ignore_eos=True)
    routing = next(iter(runner.changes.profiles), None)
    return GenerationRequest(f"rehearsal-{number}", tokens, params, routing=routing)
