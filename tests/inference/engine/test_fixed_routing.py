"""Fixed routing in the whole engine: constant shapes, tiers kept apart, drafts that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from inference.engine.changes import Changes
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import GenerationRequest, SamplingParams
from inference.models.decoder import Decoder
from inference.routing.plan import CONSTANT_TOKENS_MAX
from inference.routing.profile import RoutingProfile
from inference.routing.touched import TouchedExperts
from tests.inference.engine.conftest import Events, Table, serve
from tests.inference.engine.profiles import KEPT, profile_for

PROMPTS = [tuple(range(3 + i, 23 + 2 * i)) for i in range(5)]


@pytest.fixture(autouse=True)
def _no_step_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The engine would run the rows of a failed step alone, with the same result."""
    yield
    assert not [record for record in caplog.records if record.name.startswith("inference.engine")]


def engine_of(table: Table, *profiles: RoutingProfile, **fields: Any) -> Engine:
    model = table.model
    assert isinstance(model, Decoder)
    changes = Changes(profiles=profiles, routers=model.routers)
    changes.touched = TouchedExperts(len(model.routers), every=1)
    config = replace(table.config, **fields)
    return Engine(
        config=config,
        runner=Runner(model, config, changes=changes),
        eos_ids=(),
        token_bytes=table.tokenizer.token_bytes,
        changes=changes,
    )


def requests(profile: RoutingProfile | None, count: int = 5, new: int = 24) -> list[GenerationRequest]:
    params = SamplingParams(max_tokens=new, temperature=0)
    routing = None if profile is None else profile.id
    return [GenerationRequest(f"r{i}", PROMPTS[i], params, routing=routing) for i in range(count)]


def tokens(events: Events) -> dict[str, list[int]]:
    return {name: [token for event in found for token in event.token_ids] for name, found in events.items()}


def test_every_step_of_a_pool_touches_the_same_number_of_experts(table: Table) -> None:
    assert isinstance(table.model, Decoder)
    profile = profile_for(table.model, "pool")
    found = {}
    for name, chosen in (("fixed", profile), ("dynamic", None)):
        engine, counts = engine_of(table, profile), []
        for number, one in enumerate(requests(chosen, new=30)):
            engine.submit(replace(one, params=replace(one.params, max_tokens=12 + 4 * number)))
        while engine.has_work:
            before = engine.stats()
            engine.step()
            after = engine.stats()
            layers = after.fixed_experts_layers - before.fixed_experts_layers
            touched = after.fixed_experts_touched - before.fixed_experts_touched
            if chosen is None:
                layers = after.experts_layers - before.experts_layers
                touched = after.experts_touched - before.experts_touched
            if layers:
                counts.append(touched / layers)
        found[name] = counts
        other = "experts_layers" if chosen is not None else "fixed_experts_layers"
        assert getattr(engine.stats(), other) == 0
    assert len(found["fixed"]) >= 25
    assert set(found["fixed"]) == {KEPT}  # with 1 to 5 requests in the step
    assert min(found["dynamic"]) < KEPT < max(found["dynamic"])


def test_steps_beyond_constant_shape_stay_within_the_pool(table: Table) -> None:
    assert isinstance(table.model, Decoder)
    profile = profile_for(table.model, "pool")
    many = CONSTANT_TOKENS_MAX + 4
    params = SamplingParams(max_tokens=8, temperature=0)
    batch = [GenerationRequest(f"r{i}", (5 + i, 9, 3 * i), params, routing=profile.id) for i in range(many)]
    engine = engine_of(table, profile)
    together = tokens(serve(engine, batch))
    stats = engine.stats()
    assert stats.fixed_experts_touched <= KEPT * stats.fixed_experts_layers
    for one in batch:  # alone, in constant shape
        assert tokens(serve(engine_of(table, profile), [one])) == {one.request_id: together[one.request_id]}


@pytest.mark.parametrize("mode", ["pool", "session", "hash"])
def test_drafts_change_no_token_under_a_profile(table: Table, mode: str) -> None:
    assert isinstance(table.model, Decoder)
    profile = profile_for(table.model, mode)
    plain = tokens(serve(engine_of(table, profile), requests(profile)))
    table.guess([[*prompt, *plain[f"r{i}"]] for i, prompt in enumerate(PROMPTS)])
    engine = engine_of(table, profile, speculate=True)
    assert tokens(serve(engine, requests(profile))) == plain
    assert engine.stats().accepted_tokens > 0


def test_requests_of_two_profiles_and_of_none_never_share_a_step_and_are_answered_as_alone(
    table: Table,
) -> None:
    assert isinstance(table.model, Decoder)
    profiles = [profile_for(table.model, "pool"), profile_for(table.model, "session")]
    kinds = [*profiles, None, profiles[0], None]
    batch = [
        replace(one, routing=None if kind is None else kind.id)
        for one, kind in zip(requests(None), kinds, strict=True)
    ]
    alone: dict[str, list[int]] = {}
    for one in batch:
        alone |= tokens(serve(engine_of(table, *profiles), [one]))
    engine = engine_of(table, *profiles)
    routing_of = {one.request_id: one.routing for one in batch}
    found: dict[str, list[int]] = {name: [] for name in alone}
    for one in batch:
        engine.submit(one)
    while engine.has_work:
        events = engine.step()
        assert len({routing_of[event.request_id] for event in events}) <= 1
        for event in events:
            found[event.request_id] += event.token_ids
    assert found == alone


@pytest.mark.parametrize("mode", ["pool", "session", "hash"])
def test_an_answer_that_fell_back_is_the_dynamic_one(table: Table, mode: str) -> None:
    assert isinstance(table.model, Decoder)
    profile = profile_for(table.model, mode, coverage_min=1.0)
    events = serve(engine_of(table, profile), requests(profile))
    assert tokens(events) == tokens(serve(engine_of(table), requests(None)))
    assert all(str(found[-1].routing).startswith("dynamic; covered 0.") for found in events.values())


def test_a_hashed_prompt_is_covered_by_what_the_table_names_for_its_tokens(table: Table) -> None:
    assert isinstance(table.model, Decoder)
    profile = profile_for(table.model, "hash", coverage_min=1.0)
    events = serve(engine_of(table, profile, step_token_budget=32), requests(profile, new=2))
    again = serve(engine_of(table, profile), requests(profile, new=2))
    shares = [str(found[-1].routing) for found in events.values()]
    assert shares == [str(found[-1].routing) for found in again.values()]  # in whatever chunks it is read
    assert len(set(shares)) > 1
