"""A step serves one routing profile; nobody is passed by those that come later."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.routing.profile import RoutingProfile
from inference.routing.request import RequestRouting
from moe_ops.router import RouterSpec

SPEC = RouterSpec(2, 1, 1, "softmax", normalize=True, scale=1.0)
PROFILE = RoutingProfile(
    mode="pool", domain="code", checkpoint="c", layers=1, experts=4, size=2, coverage_min=0.5, covered=0.8,
    tokens=100, experts_LM=torch.tensor([[0, 1]]),
)  # fmt: skip
INSIDE, OUTSIDE = torch.tensor([[3.0, 1, 0, 0]]), torch.tensor([[0.0, 0, 1, 3]])
CONFIG = EngineConfig(page_size=4, pages=64, max_running=4, step_token_budget=8)


def sequence(number: int, tier: str | None, *, prompt: int = 3, new: int = 4) -> Sequence:
    params = SamplingParams(max_tokens=new, temperature=0)
    tokens = tuple(range(100 * number, 100 * number + prompt))
    made = Sequence(GenerationRequest(f"r{number}", tokens, params, routing=tier), number, seed=0)
    if tier is not None:
        made.routing = RequestRouting(PROFILE, SPEC)
    return made


def advance(scheduler: Scheduler, outside: frozenset[int] = frozenset()) -> Step:
    """One step of a model that gives every row a token; prompts numbered `outside` do not fit the profile."""
    step = scheduler.schedule()
    assert len({row.sequence.tier for row in step.rows}) == 1
    for row in step.rows:
        routing = row.sequence.routing
        if routing is not None and row.end >= row.sequence.prompt_tokens:
            routing.add(OUTSIDE if row.sequence.arrival in outside else INSIDE)
            routing.freeze()
    scheduler.record(step, [RowResult(tokens=(7,) if row.draws else ()) for row in step.rows])
    scheduler.check()
    return step


def finish(scheduler: Scheduler, outside: frozenset[int] = frozenset()) -> list[Step]:
    steps = []
    while scheduler.has_work:
        steps.append(advance(scheduler, outside))
        assert steps[-1].rows
        assert len(steps) < 500
    return steps


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b"]), st.integers(1, 9), st.integers(1, 6)),
        min_size=1,
        max_size=12,
    ),
    st.frozensets(st.integers(0, 11), max_size=3),
)
def test_all_requests_end_and_begin_in_order_of_their_coming(
    sizes: list[tuple[str | None, int, int]], outside: frozenset[int]
) -> None:
    scheduler = Scheduler(CONFIG, eos_ids=())
    sequences = [
        sequence(number, tier, prompt=prompt, new=new) for number, (tier, prompt, new) in enumerate(sizes)
    ]
    for one in sequences:
        scheduler.add(one)
    begun: list[int] = []
    for step in finish(scheduler, outside):
        begun += [row.sequence.arrival for row in step.rows if row.sequence.arrival not in begun]
    assert begun == list(range(len(sizes)))
    assert all(one.finish_reason == "length" for one in sequences)


def test_a_request_that_falls_back_leaves_the_tier_and_ends_after_it() -> None:
    scheduler = Scheduler(CONFIG, eos_ids=())
    for number in range(3):
        scheduler.add(sequence(number, "a"))
    steps = finish(scheduler, outside=frozenset({0}))
    by_step = [{row.sequence.arrival for row in step.rows} for step in steps]
    assert by_step[0] >= {0, 1}  # their prompts are read together
    alone = [arrivals for arrivals in by_step[1:] if 0 in arrivals]
    assert alone
    assert all(arrivals == {0} for arrivals in alone)


def test_a_tier_of_requests_that_all_fall_back_goes_on() -> None:
    scheduler = Scheduler(CONFIG, eos_ids=())
    for number in range(2):
        scheduler.add(sequence(number, "a"))
    finish(scheduler, outside=frozenset({0, 1}))
    assert scheduler.counts.preemptions == 0
