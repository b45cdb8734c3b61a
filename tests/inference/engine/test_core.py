"""The engine on a tiny real model: batching, pressure and failure must not change anybody's tokens."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams, TokenEvent
from inference.models.deepseek import DeepseekModel
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.tokenizer import Tokenizer

ROOMY = EngineConfig(page_size=8, pages=256, max_running=32, step_token_budget=256)


@pytest.fixture(scope="module")
def model(tiny_dir: Path) -> DeepseekModel:
    loaded = load_model(tiny_dir)
    assert isinstance(loaded, DeepseekModel)
    return loaded


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Tokenizer:
    return Tokenizer.from_dir(tiny_dir)


def make(model: CausalModel, tokenizer: Tokenizer, config: EngineConfig = ROOMY) -> Engine:
    return Engine(
        config=config,
        runner=Runner(model, config),
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
    )


def request(number: int, length: int, **params: object) -> GenerationRequest:
    prompt = tuple((number * 37 + i * i * 11 + i) % 250 + 8 for i in range(length))
    fields: dict[str, object] = {"max_tokens": 12, "temperature": 0.0}
    return GenerationRequest(f"r{number}", prompt, SamplingParams(**(fields | params)))  # type: ignore[arg-type]


def serve(engine: Engine, requests: list[GenerationRequest]) -> dict[str, list[TokenEvent]]:
    for one in requests:
        engine.submit(one)
    events: dict[str, list[TokenEvent]] = {one.request_id: [] for one in requests}
    for _ in range(3000):
        if not engine.has_work:
            return events
        for event in engine.step():
            events[event.request_id].append(event)
    raise AssertionError("the requests do not finish")


def tokens(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def text(events: list[TokenEvent]) -> str:
    return "".join(event.text for event in events)


MIXED = [
    request(0, 1),
    request(1, 100, max_tokens=30),
    request(2, 17, temperature=0.8, seed=5),
    request(3, 40, temperature=1.2, top_p=0.9, seed=6, max_tokens=25),
    request(4, 3, temperature=0.7, top_p=0.5, seed=-1, max_tokens=40),
    request(5, 200, max_tokens=3),
    request(6, 64, temperature=1.0, seed=2**64 + 9),
]


@pytest.fixture(scope="module")
def alone(model: CausalModel, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Tokens of each request of `MIXED` in an engine of its own."""
    return {one.request_id: tokens(serve(make(model, tokenizer), [one])[one.request_id]) for one in MIXED}


@pytest.mark.parametrize(
    "config",
    [
        ROOMY,
        EngineConfig(page_size=3, pages=300, max_running=7, step_token_budget=7),
        EngineConfig(page_size=16, pages=13, max_running=7, step_token_budget=40),
    ],
    ids=["roomy", "small steps", "few pages"],
)
def test_tokens_are_the_same_alone_and_in_any_batch(
    model: CausalModel, tokenizer: Tokenizer, alone: dict[str, list[int]], config: EngineConfig
) -> None:
    engine = make(model, tokenizer, config)
    events = serve(engine, MIXED)
    assert {name: tokens(found) for name, found in events.items()} == alone
    assert engine.stats().pages_free == config.pages


def test_seeds_matter_and_their_absence_varies(model: CausalModel, tokenizer: Tokenizer) -> None:
    sampled = [
        request(i, 20, temperature=1.5, seed=seed, max_tokens=20) for i, seed in enumerate((1, 2, None))
    ]
    same_prompt = [
        GenerationRequest(one.request_id, sampled[0].prompt_token_ids, one.params) for one in sampled
    ]
    engine = make(model, tokenizer)
    first, second = serve(engine, same_prompt), serve(engine, same_prompt)
    assert tokens(first["r0"]) == tokens(second["r0"])
    assert tokens(first["r0"]) != tokens(first["r1"])
    assert tokens(first["r2"]) != tokens(second["r2"])


def test_many_requests_on_few_pages_all_finish(model: CausalModel, tokenizer: Tokenizer) -> None:
    """Thirty requests that each may fill a third of the cache: preempted, recomputed, done, no page lost."""
    config = EngineConfig(page_size=4, pages=24, max_running=10, step_token_budget=24)
    engine = make(model, tokenizer, config)
    wanted = [request(i, 3 + i % 9, max_tokens=22, temperature=0.9, seed=i) for i in range(30)]
    events = serve(engine, wanted)
    assert all(found[-1].finish_reason in ("length", "stop") for found in events.values())
    reference = serve(make(model, tokenizer), wanted)
    assert {name: tokens(found) for name, found in events.items()} == {
        name: tokens(found) for name, found in reference.items()
    }
    stats = engine.stats()
    assert (stats.pages_free, stats.running, stats.queued) == (24, 0, 0)
    assert stats.generated_tokens == sum(len(tokens(found)) for found in events.values())


def test_usage_counts_every_token_produced(model: CausalModel, tokenizer: Tokenizer) -> None:
    events = serve(make(model, tokenizer), [request(1, 9, max_tokens=7)])["r1"]
    assert [event.completion_tokens for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert {event.prompt_tokens for event in events} == {9}
    assert [event.finish_reason for event in events] == [None] * 6 + ["length"]
    assert text(events) == tokenizer.decode(tokens(events))


def test_the_end_token_counts_and_shows_no_text(model: CausalModel, tokenizer: Tokenizer) -> None:
    """Make the fourth greedy token the end of the sequence: usage is the text's tokens and that one."""
    produced = tokens(serve(make(model, tokenizer), [request(1, 9)])["r1"])
    assert produced[3] not in produced[:3]
    engine = Engine(
        config=ROOMY,
        runner=Runner(model, ROOMY),
        eos_ids={produced[3]},
        token_bytes=tokenizer.token_bytes,
    )
    events = serve(engine, [request(1, 9)])["r1"]
    assert events[-1].finish_reason == "stop"
    assert tokens(events) == produced[:4]
    assert events[-1].completion_tokens == 4
    assert text(events) == tokenizer.decode(produced[:3])


def test_a_stop_string_across_tokens_ends_the_request(model: CausalModel, tokenizer: Tokenizer) -> None:
    """Every token is a byte here, so a stop string of characters always spans tokens."""
    whole = text(serve(make(model, tokenizer), [request(8, 5, max_tokens=60)])["r8"])
    stop = whole[20:23]
    engine = make(model, tokenizer)
    events = serve(engine, [request(8, 5, max_tokens=60, stop=("never there", stop))])["r8"]
    assert text(events) == whole[: whole.index(stop)]
    assert events[-1].finish_reason == "stop"
    assert events[-1].completion_tokens == len(tokens(events)) < 60
    assert engine.stats().pages_free == ROOMY.pages


def test_held_back_text_is_released_at_the_end(model: CausalModel, tokenizer: Tokenizer) -> None:
    whole = text(serve(make(model, tokenizer), [request(8, 5, max_tokens=30)])["r8"])
    events = serve(make(model, tokenizer), [request(8, 5, max_tokens=30, stop=(whole[-2:] + "x",))])["r8"]
    assert text(events) == whole
    assert events[-1].finish_reason == "length"


def test_cancelling_frees_pages_before_the_next_step(model: CausalModel, tokenizer: Tokenizer) -> None:
    engine = make(model, tokenizer)
    engine.submit(request(1, 100, max_tokens=90))
    engine.submit(request(2, 30, max_tokens=90))
    engine.step()
    held = ROOMY.pages - engine.stats().pages_free
    engine.cancel("r1")
    assert ROOMY.pages - engine.stats().pages_free == held - 13
    assert {event.request_id for event in engine.step()} == {"r2"}
    engine.cancel("r2")
    engine.cancel("r2")  # twice is no error: the client may be slower than the end
    assert engine.stats().pages_free == ROOMY.pages
    assert not engine.has_work


class Breaking(Runner):
    """Fails like a bad input would: whenever the request `victim` is in the batch."""

    victim = "r1"

    def run(self, step: Step) -> list[RowResult]:
        if any(row.sequence.request.request_id == self.victim for row in step.rows):
            raise RuntimeError("deliberate")
        return super().run(step)


def test_a_failing_request_ends_alone(
    model: CausalModel, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [request(0, 5), request(1, 6), request(2, 7)]
    expected = serve(make(model, tokenizer), wanted)
    engine = Engine(
        config=ROOMY,
        runner=Breaking(model, ROOMY),
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
    )
    with caplog.at_level(logging.ERROR):
        events = serve(engine, wanted)
    assert [event.finish_reason for event in events["r1"]] == ["error"]
    assert tokens(events["r0"]) == tokens(expected["r0"])
    assert tokens(events["r2"]) == tokens(expected["r2"])
    assert engine.stats().pages_free == ROOMY.pages
    assert "request r1 failed" in caplog.text


def test_numbers_that_are_not_finite_end_one_request_and_poison_no_page(
    model: DeepseekModel, tokenizer: Tokenizer
) -> None:
    """The embedding of token 200 is broken; its latents must not reach the next holder of the page."""
    config = EngineConfig(page_size=64, pages=2, max_running=2, step_token_budget=128)
    expected = serve(make(model, tokenizer, config), [request(2, 7)])["r2"]
    row_D = model._embedding[200]  # in place: the kernels are bound to this memory
    before_D = row_D.clone()
    try:
        with torch.inference_mode():
            row_D.fill_(float("nan"))
        engine = make(model, tokenizer, config)
        broken = GenerationRequest("bad", (9, 200, 10), SamplingParams(max_tokens=5))
        events = serve(engine, [broken, request(2, 7)])
        assert [event.finish_reason for event in events["bad"]] == ["error"]
        assert tokens(events["r2"]) == tokens(expected)
        for _ in range(2):  # both pages have been the broken one's by now
            assert tokens(serve(engine, [request(2, 7)])["r2"]) == tokens(expected)
    finally:
        with torch.inference_mode():
            row_D.copy_(before_D)


def test_ending_all_leaves_an_empty_engine(model: CausalModel, tokenizer: Tokenizer) -> None:
    engine = make(model, tokenizer)
    for number in range(40):
        engine.submit(request(number, 20))
    engine.step()
    events = engine.end_all("cancelled")
    assert {event.finish_reason for event in events} == {"cancelled"}
    assert len(events) == 40
    assert engine.stats().pages_free == ROOMY.pages
    assert not engine.has_work
    assert tokens(serve(engine, [request(1, 9)])["r1"])


def test_bf16_serves(tiny_dir: Path, tokenizer: Tokenizer) -> None:
    rough = load_model(tiny_dir, weights="bfloat16")
    events = serve(make(rough, tokenizer), MIXED)
    assert all(found[-1].finish_reason in ("length", "stop") for found in events.values())
