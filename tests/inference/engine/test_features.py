"""What requests may ask for, on a tiny real model: caching and drafting must not change anybody's tokens."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from inference.engine.scheduler import Scheduler
from inference.engine.types import GenerationRequest, Grammar, SamplingParams, TokenEvent, TokenLogprob
from tests.inference.engine.conftest import serve

Requests = list[GenerationRequest]


def tokens(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def even_clock() -> Callable[[], float]:
    """Every step takes as long as any other, so that drafts pay as soon as one comes true."""
    return itertools.count(0.0).__next__


def head(model: Any, hidden_TD: torch.Tensor) -> torch.Tensor:
    logits_TV: torch.Tensor = model._forms.linear(hidden_TD, model._head)
    return logits_TV


def text(events: list[TokenEvent]) -> str:
    return "".join(event.text for event in events)


@pytest.fixture
def mixed(make_request: Any) -> Requests:
    return [
        make_request(0, 1, max_tokens=30),
        make_request(1, 100, max_tokens=30),
        make_request(2, 17, temperature=0.8, seed=5, max_tokens=40),
        make_request(3, 40, temperature=1.2, top_p=0.9, seed=6, max_tokens=25, logprobs=2),
        make_request(4, 3, temperature=0.7, presence_penalty=1.0, seed=-1, max_tokens=40),
        make_request(5, 20, grammar=Grammar("regex", "[a-f]{5,40}"), max_tokens=20),
    ]


def test_a_cached_prefix_changes_no_token(table: Any, mixed: Requests) -> None:
    cold = table.serve(mixed)
    engine = table.engine()
    for one in mixed:
        engine.submit(one)
    while engine.has_work:
        engine.step()
    warm: dict[str, list[TokenEvent]] = {one.request_id: [] for one in mixed}
    for one in mixed:
        engine.submit(one)
    while engine.has_work:
        for event in engine.step():
            warm[event.request_id].append(event)
    assert {name: tokens(found) for name, found in warm.items()} == {
        name: tokens(found) for name, found in cold.items()
    }
    cached = {name: {event.cached_tokens for event in found} for name, found in warm.items()}
    assert cached == {"r0": {0}, "r1": {96}, "r2": {16}, "r3": {32}, "r4": {0}, "r5": {16}}
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.cached_tokens, stats.begun) == (2 * 181, 160, 12)


def test_choices_of_one_prompt_share_its_pages(table: Any, make_request: Any) -> None:
    base = make_request(1, 50, temperature=1.0, max_tokens=9)
    requests = [
        dataclasses.replace(base, request_id=f"c/{i}", params=dataclasses.replace(base.params, seed=i))
        for i in range(4)
    ]
    engine = table.engine()
    for one in requests:
        engine.submit(one)
    engine.step()
    assert engine.stats().running == 1
    engine.step()
    stats = engine.stats()
    assert (stats.running, stats.cached_tokens) == (4, 3 * 48)
    assert stats.pages_total - stats.pages_free == 6 + 4


@pytest.mark.parametrize("fields", [{}, {"page_size": 3, "pages": 60, "step_token_budget": 32}])
def test_drafts_change_no_token(table: Any, mixed: Requests, fields: dict[str, Any]) -> None:
    plain = table.serve(mixed)
    table.guess([[*one.prompt_token_ids, *tokens(plain[one.request_id])] for one in mixed])
    engine = table.engine(clock=even_clock(), speculate=True, **fields)
    for one in mixed:
        engine.submit(one)
    found: dict[str, list[TokenEvent]] = {one.request_id: [] for one in mixed}
    while engine.has_work:
        for event in engine.step():
            found[event.request_id].append(event)
    engine.check()
    for name, events in found.items():
        assert tokens(events) == tokens(plain[name])
        assert text(events) == text(plain[name])
        assert [event.completion_tokens for event in events][-1] == len(tokens(events))
        assert events[-1].finish_reason == plain[name][-1].finish_reason
        mine, others = ([one for event in e for one in event.logprobs] for e in (events, plain[name]))
        assert [one.token_id for one in mine] == [one.token_id for one in others]
        assert [one.logprob for one in mine] == pytest.approx([one.logprob for one in others], abs=1e-4)
    stats = engine.stats()
    assert 0 < stats.accepted_tokens <= stats.drafted_tokens
    assert any(len(event.token_ids) > 1 for event in found["r1"])
    assert all(len(event.token_ids) <= 1 for event in [*found["r4"], *found["r5"]])


def test_the_checkpoints_own_module_changes_no_token(table: Any, mixed: Requests) -> None:
    plain = table.serve(mixed)
    drafted = table.serve(mixed, speculate=True)
    assert {name: tokens(found) for name, found in drafted.items()} == {
        name: tokens(found) for name, found in plain.items()
    }


def test_a_stop_string_among_accepted_tokens_ends_the_request_there(table: Any, make_request: Any) -> None:
    one = make_request(8, 5, max_tokens=60, temperature=1.0, seed=3)
    plain = table.serve([one])["r8"]
    whole = text(plain)
    for stop in (whole[20:23], whole[21:24], whole[22:25]):
        stopped = dataclasses.replace(one, params=dataclasses.replace(one.params, stop=(stop,)))
        expected = table.serve([stopped])["r8"]
        table.guess([[*one.prompt_token_ids, *tokens(plain)]])
        engine = table.engine(clock=even_clock(), speculate=True)
        engine.submit(stopped)
        found = []
        while engine.has_work:
            found += engine.step()
        assert tokens(found) == tokens(expected)
        assert text(found) == text(expected) == whole[: whole.index(stop)]
        assert found[-1].finish_reason == "stop"
        assert found[-1].completion_tokens == len(tokens(found)) == engine.stats().generated_tokens
        assert engine.stats().accepted_tokens > 0
        engine.check()


def test_a_broken_module_costs_only_its_drafts(table: Any, mixed: Requests) -> None:
    class Broken:
        def forward(self, batch: Any, *_: Any) -> torch.Tensor:
            return torch.full((len(batch.last_S), 264), float("nan"))

    plain = table.serve(mixed)
    table.model.mtp = Broken()
    found = table.serve(mixed, speculate=True)
    assert {name: tokens(events) for name, events in found.items()} == {
        name: tokens(events) for name, events in plain.items()
    }


@pytest.mark.parametrize("speculate", [False, True])
def test_being_put_back_changes_nothing(
    table: Any, mixed: Requests, make_request: Any, *, speculate: bool
) -> None:
    requests = [
        *mixed,
        make_request(6, 30, repetition_penalty=1.3, frequency_penalty=0.5, max_tokens=30, logprobs=1),
        make_request(7, 45, prompt_logprobs=1, logprobs=1, temperature=0.9, seed=8, max_tokens=30),
        make_request(8, 20, grammar=Grammar("regex", "[a-f]{9,40}"), presence_penalty=1.0, max_tokens=25),
        make_request(9, 40, logit_bias=((20, 5.0),), min_p=0.01, top_k=30, temperature=1.0, seed=9),
    ]
    alone = {one.request_id: table.serve([one])[one.request_id] for one in requests}
    if speculate:
        table.guess([[*one.prompt_token_ids, *tokens(alone[one.request_id])] for one in requests])
    engine = table.engine(clock=even_clock(), speculate=speculate, page_size=3, pages=50)
    found = serve(engine, requests)
    assert engine.stats().preemptions > 2
    for name, events in found.items():
        assert tokens(events) == tokens(alone[name])
        assert text(events) == text(alone[name])
        assert events[-1].finish_reason == alone[name][-1].finish_reason
        assert events[-1].completion_tokens == len(tokens(events))
        for mine, other in zip(scored(events), scored(alone[name]), strict=True):
            assert mine.token_id == other.token_id
            assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in mine.top] == [token for token, _ in other.top]


def scored(events: list[TokenEvent]) -> list[TokenLogprob]:
    """Log probabilities of the prompt and of the text."""
    prompt = [one for event in events for one in event.prompt_logprobs if one is not None]
    return prompt + [one for event in events for one in event.logprobs]


def test_an_embedding_is_the_last_tokens_state_of_length_one(table: Any, make_request: Any) -> None:
    short, long = make_request(1, 9, embed=True), make_request(2, 100, embed=True)
    found = table.serve([short, long, make_request(3, 30)], step_token_budget=32)
    for one in (short, long):
        (event,) = found[one.request_id]
        assert event.embedding is not None
        assert (event.finish_reason, event.token_ids, event.completion_tokens) == ("stop", (), 0)
        assert event.prompt_tokens == len(one.prompt_token_ids)
        assert sum(x * x for x in event.embedding) == pytest.approx(1, abs=1e-5)
        (token,) = head(table.model, torch.tensor([event.embedding])).argmax(-1).tolist()
        continued = dataclasses.replace(one, embed=False)
        assert tokens(table.serve([continued])[one.request_id])[0] == token


def test_log_probabilities_of_the_prompt_are_the_models(
    table: Any, make_request: Any, logits_of: Any
) -> None:
    one = make_request(1, 300, prompt_logprobs=3, logprobs=1, max_tokens=4)
    engine = table.engine(pages=60)
    first = engine_events(engine, dataclasses.replace(one, params=SamplingParams(max_tokens=1)))
    assert first[0].prompt_logprobs == ()
    events = engine_events(engine, one)
    assert [len(event.prompt_logprobs) for event in events] == [300, 0, 0, 0]
    assert events[0].cached_tokens == 0
    scores = events[0].prompt_logprobs
    assert scores[0] is None
    (logits,) = logits_of(table.model, [one.prompt_token_ids])
    expected = logits.log_softmax(-1)
    for place, score in enumerate(scores[1:]):
        assert score is not None
        assert score.token_id == one.prompt_token_ids[place + 1]
        assert score.logprob == pytest.approx(float(expected[place, score.token_id]), abs=1e-4)
        best = expected[place].topk(3).values.tolist()
        assert [logprob for _, logprob in score.top] == pytest.approx(best, abs=1e-4)
    assert events[0].logprobs[0].logprob == pytest.approx(
        float(expected[-1, events[0].token_ids[0]]), abs=1e-4
    )


def engine_events(engine: Any, one: GenerationRequest) -> list[TokenEvent]:
    engine.submit(one)
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def test_a_prompt_of_one_token_has_one_empty_score(table: Any, make_request: Any) -> None:
    events = table.serve([make_request(1, 1, prompt_logprobs=0)])["r1"]
    assert events[0].prompt_logprobs == (None,)


def test_scored_prompts_that_are_put_back_are_scored_once(table: Any, make_request: Any) -> None:
    """A better priority takes the place between two chunks of the prompt."""
    one = make_request(1, 200, prompt_logprobs=0)
    expected = table.serve([one])["r1"][0].prompt_logprobs
    engine = table.engine(max_running=1, step_token_budget=50)
    engine.submit(one)
    engine.step()
    engine.submit(make_request(2, 5, priority=-1))
    events = []
    while engine.has_work:
        events += [event for event in engine.step() if event.request_id == "r1"]
    assert engine.stats().preemptions == 1
    assert len(events[0].prompt_logprobs) == 200
    for mine, other in zip(events[0].prompt_logprobs[1:], expected[1:], strict=True):
        assert mine.token_id == other.token_id
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_deadline_in_the_queue_ends_with_expired(table: Any, make_request: Any) -> None:
    now = [0.0]
    engine = table.engine(clock=lambda: now[0], max_running=1)
    engine.submit(make_request(1, 5, max_tokens=30))
    engine.submit(make_request(2, 5, deadline_s=2.0))
    engine.submit(make_request(3, 5, deadline_s=9.0))
    engine.step()
    now[0] = 2.0
    expired = [event for event in engine.step() if event.finish_reason == "expired"]
    assert [(event.request_id, event.token_ids, event.completion_tokens) for event in expired] == [
        ("r2", (), 0)
    ]
    engine.cancel("r2")
    ends = []
    while engine.has_work:
        ends += [event for event in engine.step() if event.finish_reason]
    assert [(event.request_id, event.finish_reason) for event in ends] == [("r1", "length"), ("r3", "length")]
    stats = engine.stats()
    assert (stats.expired, stats.begun, stats.queue_wait_s) == (1, 2, 2.0)


def test_a_text_follows_its_grammar(table: Any, make_request: Any) -> None:
    found = table.serve(
        [make_request(i, 10 + i, grammar=Grammar("regex", "[xyz]{6}"), max_tokens=20) for i in range(3)]
    )
    for events in found.values():
        assert len(text(events)) == 6
        assert set(text(events)) <= set("xyz")
        assert events[-1].finish_reason == "stop"


def test_a_grammar_that_can_not_be_compiled_ends_one_request(
    table: Any, make_request: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_request(1, 5, grammar=Grammar("regex", "("))
    found = table.serve([bad, make_request(2, 5)])
    assert found["r1"][-1].finish_reason == "stuck"
    assert found["r1"][-1].problem
    assert found["r1"][-1].problem not in caplog.text  # it may quote what the caller wrote
    assert tokens(found["r2"]) == tokens(table.serve([make_request(2, 5)])["r2"])
    assert "cannot go on in its grammar" in caplog.text
    assert "rows run alone" not in caplog.text  # nobody else's step is computed twice


def test_times_and_loads_are_reported(table: Any, mixed: Requests) -> None:
    engine = table.engine()
    for one in mixed:
        engine.submit(one)
    while engine.has_work:
        engine.step()
    stats = engine.stats()
    assert min(stats.schedule_s, stats.forward_s, stats.sample_s) > 0
    assert stats.draft_s >= 0
    assert stats.generated_tokens == sum(len(tokens(events)) for events in table.serve(mixed).values())


def test_books_are_checked_when_nothing_is_left_to_do_but_not_all_the_time(
    table: Any, make_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[float] = []
    now = 0.0
    engine = table.engine(clock=lambda: now)
    monkeypatch.setattr(Scheduler, "check", lambda scheduler: checks.append(now))
    for now in (0.0, 1.0, 9.0, 11.0, 12.0):  # noqa: B007 -- the clock reads it
        engine_events(engine, make_request(1, 5))
    assert checks == [0.0, 11.0]


def test_books_that_disagree_cost_the_cache_and_nobody_his_answer(
    table: Any, make_request: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one, engine = make_request(1, 40), table.engine(clock=itertools.count(0.0, 5.0).__next__)
    expected = engine_events(engine, one)
    engine._scheduler.pages.take(1)  # and never given back
    with caplog.at_level(logging.ERROR):
        assert tokens(engine_events(engine, one)) == tokens(expected)
    assert "the books of the cache disagree" in caplog.text
    engine.check()
    assert engine.stats().pages_free == engine.stats().pages_total
    again = engine_events(engine, one)
    assert (tokens(again), again[-1].cached_tokens) == (tokens(expected), 0)
    assert engine_events(engine, one)[-1].cached_tokens == 32
