"""The scheduler against a model made of arithmetic: invariants after every step, and the same tokens in the
end.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.types import EngineConfig
from tests.inference.engine.arithmetic import EOS, Fake, check, continuation, request

Size = tuple[int, int, dict[str, Any]]


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineConfig, list[Size], list[tuple[str, int]]]:
    page_size = draw(st.integers(1, 5))
    pages = draw(st.integers(2, 14))
    max_running = draw(st.integers(1, 5))
    budget = draw(st.integers(max_running, max_running + 12))
    config = EngineConfig(page_size=page_size, pages=pages, max_running=max_running, step_token_budget=budget)
    room = page_size * pages
    sizes = []
    for _ in range(draw(st.integers(1, 9))):
        prompt = draw(st.integers(1, room - 1))
        fields = {
            "priority": draw(st.integers(-1, 1)),
            "deadline_s": draw(st.sampled_from([None, None, 3.0])),
        }
        sizes.append((prompt, draw(st.integers(1, room - prompt)), fields))
    actions = st.tuples(st.sampled_from(["submit", "step", "step", "cancel"]), st.integers(0, 8))
    return config, sizes, draw(st.lists(actions, max_size=40))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(workloads())
def test_no_page_is_lost_and_every_request_gets_its_own_tokens(
    workload: tuple[EngineConfig, list[Size], list[tuple[str, int]]],
) -> None:
    config, sizes, actions = workload
    scheduler, fake = Scheduler(config, {EOS}), Fake(config.page_size)
    sequences: list[Sequence] = []

    now = 0.0

    def submit() -> None:
        number = len(sequences)
        if number < len(sizes):
            prompt, max_tokens, fields = sizes[number]
            sequences.append(Sequence(request(number, prompt, max_tokens, **fields), number, seed=0))
            scheduler.add(sequences[-1], now)

    def step() -> None:
        nonlocal now
        now += 1.0
        scheduler.expire(now)
        worked = scheduler.has_work
        chosen = scheduler.schedule(now, drafting=int(now) % 5 > 0)
        check(scheduler, chosen, config)
        assert bool(chosen.rows) == worked, "work is there and nothing moves"
        scheduler.record(chosen, fake.run(chosen))
        scheduler.check()

    for action, number in actions:
        if action == "submit":
            submit()
        elif action == "step":
            step()
        elif number < len(sequences) and sequences[number].finish_reason is None:
            scheduler.finish(sequences[number], "cancelled")
    while len(sequences) < len(sizes):
        submit()
    for _ in range(5000):
        if not scheduler.has_work:
            break
        step()
    assert not scheduler.has_work, "the requests do not finish"
    assert scheduler.pages.free == config.pages
    for sequence in sequences:
        if sequence.finish_reason == "expired":
            assert not sequence.begun
            assert sequence.request.deadline_s is not None
        elif sequence.finish_reason != "cancelled":
            assert sequence.tokens == continuation(sequence.request)
            ended = sequence.tokens[-1] == EOS and sequence.completion_tokens
            assert sequence.finish_reason == ("stop" if ended else "length")
