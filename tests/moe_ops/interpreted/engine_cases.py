"""Whole engines with their model on a GPU, as Triton's interpreter has it, beside the same on a CPU. Run by
`test_triton.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from inference.adapters.targets import adapted_modules
from inference.engine import loading
from inference.engine.core import Engine
from inference.engine.loading import engine_load
from inference.engine.types import EngineConfig, GenerationRequest, Grammar, SamplingParams, TokenEvent
from inference.models import placed
from inference.models.config import ModelConfig
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.routing.profile import RoutingProfile, routers_digest
from inference.routing.selection import keep_best
from moe_ops.accelerator.graphs import DecodeGraphs, Inputs, Outputs

TINY = {**TINY_V3, "num_nextn_predict_layers": 1}
CONFIG = EngineConfig(page_size=8, pages=96, max_running=6, step_token_budget=40, threads=1)
QWEN: dict[str, object] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 264,
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "max_position_embeddings": 256, "norm_topk_prob": True, "rms_norm_eps": 1e-6,
}  # fmt: skip
KEPT = 6
VOCABULARY = int(str(TINY_V3["vocab_size"]))
Events = dict[str, list[TokenEvent]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    random_checkpoint_write(path=path, config=TINY)
    return path


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every step that a graph computed; graphs are for short contexts, to be quick."""
    used: list[int] = []
    run = DecodeGraphs.run

    def noted(self: DecodeGraphs, inputs: Inputs) -> Outputs:
        used.append(len(inputs["token"]))
        return run(self, inputs)

    monkeypatch.setattr(placed, "GRAPH_CONTEXT", 64)
    monkeypatch.setattr(loading, "FIRST_STEPS", 0)
    monkeypatch.setattr(DecodeGraphs, "run", noted)
    return used


def request(name: str, length: int, **fields: Any) -> GenerationRequest:
    prompt = tuple((len(name) * 37 + i * i * 11 + i) % 250 + 8 for i in range(length))
    sampling = {"max_tokens": 5, "temperature": 0, "logprobs": 2, "ignore_eos": True}
    outside = {key: fields.pop(key) for key in ("adapter", "routing", "embed") if key in fields}
    return GenerationRequest(name, prompt, SamplingParams(**{**sampling, **fields}), **outside)


def serve(engine: Engine, requests: Iterable[GenerationRequest]) -> Events:
    events: Events = {}
    for one in requests:
        engine.submit(one)
        events[one.request_id] = []
    while engine.has_work:
        for event in engine.step():
            events[event.request_id].append(event)
    engine.check()
    return events


def same(found: Events, expected: Events) -> None:
    for name, theirs in expected.items():
        ours = found[name]
        assert [event.finish_reason for event in ours] == [event.finish_reason for event in theirs], name
        tokens = ([token for event in events for token in event.token_ids] for events in (ours, theirs))
        assert next(tokens) == next(tokens), name
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine.cached_tokens, mine.text) == (other.cached_tokens, other.text)
            got, wanted = ([entry.logprob for entry in one.logprobs] for one in (mine, other))
            assert got == pytest.approx(wanted, abs=1e-4)
            if other.embedding is not None:
                assert mine.embedding == pytest.approx(other.embedding, abs=1e-4)


def both(folder: Path, requests: Sequence[GenerationRequest], config: EngineConfig = CONFIG) -> Events:
    """Events of an engine on the GPU, which are those of one on the CPU."""
    engines = [engine_load(folder, replace(config, device=device)).engine for device in ("cuda", "cpu")]
    found, expected = (serve(engine, requests) for engine in engines)
    same(found, expected)
    return found


def test_an_engine_answers_as_on_a_cpu(folder: Path, graphs: list[int]) -> None:
    """Long prompts in chunks, short ones, text in a form, an embedding, a prompt's log probabilities."""
    form = Grammar("regex", "[a-c]{2,3}")
    asked = [
        request("long", 70),
        request("a", 5),
        request("bb", 19, max_tokens=9),
        request("form", 12, grammar=form, ignore_eos=False),
        request("scored", 7, prompt_logprobs=1),
        request("state", 21, embed=True),
        request("seeded", 9, temperature=0.8, seed=7),
    ]
    found = both(folder, asked)
    assert len(found["bb"][-1].token_ids) == 1
    assert {1, 2} & set(graphs)  # by and by fewer rows are left


def test_prefixes_are_found_and_pages_without_numbers_do_no_harm(folder: Path) -> None:
    engine = engine_load(folder, replace(CONFIG, device="cuda")).engine
    first, again = (serve(engine, [request("a", 20, max_tokens=1)])["a"] for _ in range(2))
    assert (first[-1].cached_tokens, again[-1].cached_tokens) == (0, 16)
    assert [event.token_ids for event in first] == [event.token_ids for event in again]


def test_drafts_change_nothing(folder: Path) -> None:
    config = replace(CONFIG, speculate=True)
    engine = engine_load(folder, replace(config, device="cuda")).engine
    asked = [request("a", 9, max_tokens=5), request("bb", 3, max_tokens=5)]
    found = serve(engine, asked)
    assert engine.stats().drafted_tokens > 0
    plain = serve(engine_load(folder, CONFIG).engine, asked)
    for one in asked:
        ours, theirs = ([t for e in events[one.request_id] for t in e.token_ids] for events in (found, plain))
        assert ours == theirs


def test_adapters_and_profiles(folder: Path, tmp_path: Path) -> None:
    adapter = adapter_write(folder, tmp_path / "adapter")
    config = replace(CONFIG, adapters_max=2, routing_profiles=profiles_write(folder, tmp_path))
    asked = [
        request("plain", 9),
        request("adapted", 9, adapter="one"),
        request("b", 18, adapter="one", max_tokens=2),
    ]
    answers = []
    for device in ("cuda", "cpu"):
        engine = engine_load(folder, replace(config, device=device)).engine
        engine.changes.load("one", str(adapter))
        fixed = [request(f"fixed {name}", 6, routing=name, max_tokens=3) for name in engine.changes.profiles]
        answers.append(serve(engine, [*asked, *fixed]))
    same(*answers)
    assert len(answers[0]) == len(asked) + 3


def test_qwen3_moe_answers_as_on_a_cpu(tmp_path: Path) -> None:
    random_checkpoint_write(path=tmp_path, config=QWEN)
    both(tmp_path, [request("a", 21, max_tokens=3), request("bb", 4, max_tokens=3)])


def test_bfloat16_comes_near(folder: Path) -> None:
    asked = [request("a", 3, max_tokens=1), request("long", 20, max_tokens=1)]
    config = replace(CONFIG, weights="bfloat16")
    engines = [engine_load(folder, replace(config, device=device)).engine for device in ("cuda", "cpu")]
    found, expected = (serve(engine, asked) for engine in engines)
    for one in asked:
        (ours,), (theirs,) = found[one.request_id], expected[one.request_id]
        near = {entry[0]: entry[1] for entry in theirs.logprobs[0].top}
        shared = [(near[token], value) for token, value in ours.logprobs[0].top if token in near]
        assert shared
        assert all(value == pytest.approx(wanted, abs=0.1) for wanted, value in shared)


def adapter_write(folder: Path, to: Path) -> Path:
    to.mkdir()
    generator = torch.Generator().manual_seed(1)
    modules = adapted_modules(ModelConfig.from_dir(folder))
    tensors = {}
    for name in modules:
        if any(part in name for part in ("kv_b_proj", "layers.2.self_attn")):
            continue
        outputs, inputs = modules[name]
        for side, shape in (("A", (3, inputs)), ("B", (outputs, 3))):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = (
                torch.randn(*shape, generator=generator) / 9
            )
    save_file(tensors, to / "adapter_model.safetensors")
    (to / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 3}))
    return to


def profiles_write(folder: Path, to: Path) -> tuple[str, ...]:
    """A pool and a table of hashes, in files."""
    routers = load_model(folder).routers
    layers, experts = len(routers), len(routers[0][0])
    generator = torch.Generator().manual_seed(2)
    kept_LE = keep_best(torch.rand(layers, experts, generator=generator), KEPT, routers[0][1])
    first_LV1 = torch.randint(0, experts, (layers, VOCABULARY, 1), generator=generator)
    table_LVK = torch.cat([first_LV1, (first_LV1 + 1) % experts], dim=-1).to(torch.int16)
    common: dict[str, Any] = {
        "domain": "test", "checkpoint": routers_digest(weight for weight, _ in routers), "layers": layers,
        "experts": experts, "size": KEPT, "coverage_min": 0.0, "covered": 1.0, "tokens": 1,
    }  # fmt: skip
    pool_LM = torch.stack([kept_E.nonzero().squeeze(1) for kept_E in kept_LE])
    made = (
        RoutingProfile(mode="pool", experts_LM=pool_LM, table_LVK=None, **common),
        RoutingProfile(mode="hash", experts_LM=None, table_LVK=table_LVK, **common),
        RoutingProfile(mode="session", experts_LM=None, table_LVK=None, **common),
    )
    for profile in made:
        profile.save(to / f"{profile.mode}.safetensors")
    return tuple(str(to / f"{profile.mode}.safetensors") for profile in made)
