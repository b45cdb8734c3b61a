"""Adapters and fixed routing through the whole engine, on a real tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.adapters.store import AdapterStore
from inference.adapters.targets import adapted_modules
from inference.engine.changes import Changes
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams, TokenEvent
from inference.models.config import ModelConfig
from inference.models.deepseek import DeepseekModel
from inference.models.loader import load_model
from inference.routing.profile import ProfileError, RoutingProfile, routers_digest
from inference.routing.selection import keep_best

CONFIG = EngineConfig(page_size=4, pages=128, max_running=8, step_token_budget=24, adapters_max=4)
PROMPTS = [tuple(range(3 + i, 23 + 2 * i)) for i in range(4)]
EVERYWHERE = [
    "model.layers.0.self_attn.q_a_proj",
    "model.layers.0.self_attn.q_b_proj",
    "model.layers.0.self_attn.kv_a_proj_with_mqa",
    "model.layers.1.self_attn.o_proj",
    "model.layers.0.mlp.gate_proj",
    "model.layers.0.mlp.down_proj",
    "model.layers.1.mlp.shared_experts.up_proj",
    "model.layers.1.mlp.shared_experts.down_proj",
    *(f"model.layers.{layer}.mlp.experts.{expert}.{side}_proj"
      for layer in (1, 2) for expert in range(8) for side in ("gate", "down")),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_dir: Path) -> DeepseekModel:
    model = load_model(tiny_dir)
    assert isinstance(model, DeepseekModel)
    return model


@pytest.fixture(scope="module")
def folders(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters on all kinds of projections, and one on attention alone."""
    modules = adapted_modules(ModelConfig.from_dir(tiny_dir))
    found = []
    for seed, names in enumerate((EVERYWHERE, EVERYWHERE, EVERYWHERE[:4])):
        folder = tmp_path_factory.mktemp("adapter")
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for name in names:
            outputs, inputs = modules[name]
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(3, inputs, generator=generator)
            tensors[f"base_model.model.{name}.lora_B.weight"] = (
                torch.randn(outputs, 3, generator=generator) / 9
            )
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 3})
        )
        found.append(folder)
    return found


def merged(tiny_dir: Path, adapter: Path, to: Path) -> Path:
    """The checkpoint with an adapter's changes added to its weights."""
    factors = load_file(adapter / "adapter_model.safetensors")
    for file in tiny_dir.iterdir():
        if file.suffix != ".safetensors":
            (to / file.name).write_bytes(file.read_bytes())
            continue
        tensors = load_file(file)
        for name in tensors:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{module}.lora_A.weight" in factors:
                a, b = factors[f"{module}.lora_A.weight"], factors[f"{module}.lora_B.weight"]
                tensors[name] = (tensors[name].double() + b.double() @ a.double()).float()
        save_file(tensors, to / file.name)
    return to


def engine_of(model: DeepseekModel, changes: Changes | None = None, config: EngineConfig = CONFIG) -> Engine:
    changes = changes or Changes()
    return Engine(
        config=config,
        runner=Runner(model, config, changes=changes),
        eos_ids=(),
        token_bytes=[b"x"] * 264,
        changes=changes,
    )


def with_adapters(model: DeepseekModel, folders: Sequence[Path]) -> Changes:
    store = AdapterStore(modules=adapted_modules(model.config), limit=4, rank_max=8)
    for index, folder in enumerate(folders):
        store.add(f"a{index}", store.read(folder))
    return Changes(adapters=store, routers=model.routers)


def request(name: str, prompt: tuple[int, ...], **more: object) -> GenerationRequest:
    params = SamplingParams(max_tokens=20, temperature=0)
    return replace(GenerationRequest(name, prompt, params), **more)  # type: ignore[arg-type]  # names vary


def run(engine: Engine, requests: Iterable[GenerationRequest]) -> dict[str, list[TokenEvent]]:
    events: dict[str, list[TokenEvent]] = {}
    for one in requests:
        engine.submit(one)
    while engine.has_work:
        for event in engine.step():
            events.setdefault(event.request_id, []).append(event)
    engine.check()
    return events


def tokens(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


def test_each_request_of_a_batch_is_answered_as_by_weights_with_its_adapter_merged(
    model: DeepseekModel, tiny_dir: Path, folders: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = {"plain": tokens(run(engine_of(model), [request("plain", PROMPTS[0])])["plain"])}
    for index, folder in enumerate(folders):
        changed = load_model(merged(tiny_dir, folder, tmp_path_factory.mktemp("merged")))
        assert isinstance(changed, DeepseekModel)
        found = run(engine_of(changed), [request("r", PROMPTS[index + 1])])
        wanted[f"a{index}"] = tokens(found["r"])
    assert len({tuple(one) for one in wanted.values()}) == 4
    engine = engine_of(model, with_adapters(model, folders))
    batch = [request("plain", PROMPTS[0])]
    batch += [request(f"a{i}", PROMPTS[i + 1], adapter=f"a{i}") for i in range(3)]
    assert {name: tokens(events) for name, events in run(engine, batch).items()} == wanted


def test_cached_prefixes_of_one_adapter_do_not_serve_another(
    model: DeepseekModel, folders: list[Path]
) -> None:
    engine = engine_of(model, with_adapters(model, folders))
    alone = {
        name: tokens(
            run(engine_of(model, with_adapters(model, folders)), [request("r", PROMPTS[3], adapter=name)])[
                "r"
            ]
        )
        for name in ("a0", "a1")
    }
    for name in ("a0", "a1", "a0"):
        events = run(engine, [request("r", PROMPTS[3], adapter=name)])["r"]
        assert tokens(events) == alone[name]
    assert events[-1].cached_tokens > 0


def test_another_adapter_under_the_same_name_finds_nothing_of_the_first_one(
    model: DeepseekModel, folders: list[Path]
) -> None:
    changes = with_adapters(model, folders[:1])
    assert changes.adapters is not None
    engine = engine_of(model, changes)
    first, again = (run(engine, [request("r", PROMPTS[3], adapter="a0")])["r"] for _ in range(2))
    assert again[-1].cached_tokens > 0
    changes.adapters.drop("a0")
    changes.adapters.add("a0", changes.adapters.read(folders[1]))
    other = run(engine, [request("r", PROMPTS[3], adapter="a0")])["r"]
    assert other[-1].cached_tokens == 0
    alone = run(engine_of(model, with_adapters(model, folders[1:])), [request("r", PROMPTS[3], adapter="a0")])
    assert tokens(other) == tokens(alone["r"]) != tokens(first)


def test_dropping_an_adapter_leaves_its_requests_alone_and_refuses_new_ones(
    model: DeepseekModel, folders: list[Path]
) -> None:
    changes = with_adapters(model, folders)
    assert changes.adapters is not None
    engine = engine_of(model, changes)
    whole = tokens(run(engine, [request("r", PROMPTS[1], adapter="a0")])["r"])
    engine.submit(request("r", PROMPTS[1], adapter="a0"))
    begun = engine.step()
    changes.adapters.drop("a0")
    rest = run(engine, [request("late", PROMPTS[1], adapter="a0")])
    assert tokens(begun + rest["r"]) == whole
    assert [event.finish_reason for event in rest["late"]] == ["refused"]
    assert changes.adapters.names == ("a1", "a2")
    changes.adapters.add("again", changes.adapters.read(folders[0]))
    changes.adapters.add("more", changes.adapters.read(folders[1]))  # the dropped one has left its place


def test_cancelled_requests_let_go_of_their_adapter(model: DeepseekModel, folders: list[Path]) -> None:
    changes = with_adapters(model, folders)
    assert changes.adapters is not None
    engine = engine_of(model, changes)
    engine.submit(request("r", PROMPTS[1], adapter="a0"))
    engine.step()
    changes.adapters.drop("a0")
    engine.cancel("r")
    for name in ("x", "y"):
        changes.adapters.add(name, changes.adapters.read(folders[0]))


def test_a_request_that_can_not_be_begun_ends_alone_and_lets_go(
    model: DeepseekModel, folders: list[Path]
) -> None:
    changes = with_adapters(model, folders)
    assert changes.adapters is not None
    engine = engine_of(model, changes)
    endless = SamplingParams(max_tokens=10_000_000)  # the front refuses it
    found = run(engine, [request("r", PROMPTS[0]), request("x", PROMPTS[1], adapter="a0", params=endless)])
    assert [event.finish_reason for event in found["x"]] == ["error"]
    assert found["r"][-1].finish_reason in ("stop", "length")
    engine.submit(request("y", PROMPTS[1], adapter="a0", params=endless))
    engine.cancel("y")
    changes.adapters.drop("a0")
    changes.adapters.add("more", changes.adapters.read(folders[1]))  # nobody holds the dropped one


def profile_for(model: DeepseekModel, mode: str, **more: object) -> RoutingProfile:
    routers = model.routers
    spec = routers[0][1]
    kept_LE = keep_best(torch.rand(len(routers), 8, generator=torch.Generator().manual_seed(1)), 4, spec)
    profile = RoutingProfile(
        mode="session", domain="test", checkpoint=routers_digest(w for w, _ in routers), layers=len(routers),
        experts=8, size=4, coverage_min=0.0, covered=1.0, tokens=1,
    )  # fmt: skip
    if mode == "pool":
        more["experts_LM"] = torch.stack([kept_E.nonzero().squeeze(1) for kept_E in kept_LE])
    if mode == "hash":
        more["table_LVK"] = torch.randint(0, 8, (len(routers), 264, 1)).repeat(1, 1, 2).to(torch.int16)
        more["table_LVK"][..., 1] = (more["table_LVK"][..., 0] + 1) % 8  # type: ignore[index]  # just made
    return replace(profile, mode=mode, **more)  # type: ignore[arg-type]  # modes and tensors vary


@pytest.mark.parametrize("mode", ["pool", "session", "hash"])
def test_answers_under_a_profile_are_the_same_alone_in_a_batch_and_after_preemption(
    model: DeepseekModel, mode: str
) -> None:
    profile = profile_for(model, mode)
    changes = Changes(profiles=[profile], routers=model.routers)
    alone = [
        run(engine_of(model, changes), [request("r", prompt, routing=profile.id)])["r"] for prompt in PROMPTS
    ]
    assert all(events[-1].routing == profile.id for events in alone)
    plain = [tokens(run(engine_of(model), [request("r", prompt)])["r"]) for prompt in PROMPTS]
    assert [tokens(events) for events in alone] != plain
    assert [tokens(events)[0] for events in alone] == [one[0] for one in plain]  # prompts are read as ever
    tight = replace(CONFIG, pages=24)
    batch = [request(f"r{i}", prompt, routing=profile.id) for i, prompt in enumerate(PROMPTS)]
    batch += [request(f"p{i}", prompt) for i, prompt in enumerate(PROMPTS)]
    for config in (CONFIG, tight):
        engine = engine_of(model, changes, config)
        found = run(engine, batch)
        assert [tokens(found[f"r{i}"]) for i in range(4)] == [tokens(events) for events in alone]
        assert [tokens(found[f"p{i}"]) for i in range(4)] == plain
    assert engine.stats().preemptions > 0


def test_an_answer_under_a_profile_is_read_anew_when_it_returns_in_a_prompt(model: DeepseekModel) -> None:
    profile = profile_for(model, "pool")
    changes = Changes(profiles=[profile], routers=model.routers)
    engine = engine_of(model, changes)
    first = tokens(run(engine, [request("first", PROMPTS[0], routing=profile.id)])["first"])
    followed = request("next", (*PROMPTS[0], *first, 7, 8, 9), routing=profile.id)
    found = run(engine, [followed])["next"]
    assert tokens(found) == tokens(run(engine_of(model, changes), [followed])["next"])
    assert found[-1].cached_tokens == len(PROMPTS[0]) // 4 * 4


def test_a_prompt_outside_the_profile_is_answered_dynamically_and_says_so(model: DeepseekModel) -> None:
    profile = profile_for(model, "pool", coverage_min=1.0)
    changes = Changes(profiles=[profile], routers=model.routers)
    events = run(engine_of(model, changes), [request("r", PROMPTS[0], routing=profile.id)])["r"]
    assert tokens(events) == tokens(run(engine_of(model), [request("r", PROMPTS[0])])["r"])
    report = events[-1].routing
    assert report is not None
    assert report.startswith("dynamic; covered 0.")


def test_profiles_of_other_checkpoints_are_refused(model: DeepseekModel) -> None:
    profile = replace(profile_for(model, "session"), checkpoint="other")
    with pytest.raises(ProfileError, match="another checkpoint"):
        Changes(profiles=[profile], routers=model.routers)
    engine = engine_of(model)
    event = run(engine, [request("r", PROMPTS[0], routing=profile.id)])["r"][0]
    assert (event.finish_reason, event.problem) == ("refused", f"no routing profile {profile.id} is loaded")
