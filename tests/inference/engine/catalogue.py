"""Requests of every kind that the engine serves, with the adapters and profiles they need, and what a
request was answered with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.adapters.targets import adapted_modules
from inference.engine.types import FinishReason, GenerationRequest, Grammar, SamplingParams, TokenEvent
from inference.models.config import ModelConfig
from inference.routing.profile import RoutingProfile
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.tools.grammar import forced_grammar
from inference.worker.protocol.tools.styles import TAGGED

FAMILIES = [tuple((family * 31 + i * 7) % 90 + 10 for i in range(60)) for family in range(5)]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "maximum": 9, "minimum": 1},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
FLAGS = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}
TOOL = Tool("look_up", WEATHER, {})
_ADAPTED = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj", "gate_proj", "down_proj")


def adapter_write(folder: Path, config: ModelConfig, *, rank: int, seed: int) -> Path:
    """A LoRA adapter as PEFT writes it, on attention, dense, shared and routed projections of all layers."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in adapted_modules(config).items():
        if name.endswith(_ADAPTED):
            key = f"base_model.model.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator)
            tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) / 9
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def catalogue(profiles: Items[RoutingProfile]) -> list[GenerationRequest]:
    """Some of everything; the adapters are called law and code. One request under each of the `profiles`."""
    plain = SamplingParams(max_tokens=16, temperature=0.0)
    drawn = replace(plain, temperature=1.0)
    fixed = [replace(_request(plain, 2, 30 + i), routing=profile.id) for i, profile in enumerate(profiles)]
    requests = [
        _request(plain, 0, 5),
        _request(replace(plain, max_tokens=24), 0, 50),
        *(_request(replace(drawn, seed=seed), 1, 41) for seed in range(3)),  # the choices of one prompt
        _request(replace(drawn, top_p=0.8, seed=4, stop=("e", "zz")), 2, 14),
        _request(replace(drawn, top_k=20, seed=5, presence_penalty=0.5), 0, 23),
        _request(replace(drawn, seed=6, frequency_penalty=0.6, repetition_penalty=1.2), 3, 32),
        _request(replace(drawn, seed=7, min_p=0.01, logit_bias=((20, 4.0), (30, -100.0))), 1, 41),
        _request(replace(drawn, seed=8, logprobs=2, ignore_eos=True), 2, 50),
        _request(replace(plain, prompt_logprobs=1, logprobs=1), 3, 37),
        replace(_request(plain, 4, 45), embed=True),
        _request(replace(drawn, seed=9, grammar=Grammar("regex", "[a-k]{3,12}")), 1, 23),
        _request(
            replace(drawn, seed=10, grammar=Grammar("regex", "[a-f]{9,40}"), presence_penalty=1.0), 4, 5
        ),
        _request(replace(drawn, seed=11, max_tokens=40, grammar=schema(WEATHER)), 0, 50),
        _request(replace(drawn, seed=12, max_tokens=30, grammar=schema(FLAGS)), 3, 14),
        _request(replace(drawn, seed=13, max_tokens=90, grammar=called()), 4, 32),
        *(replace(_request(plain, 0, length), adapter="law") for length in (23, 50)),
        replace(_request(replace(drawn, seed=14, logprobs=1), 1, 41), adapter="law"),
        replace(_request(plain, 0, 50), adapter="code"),
        replace(
            _request(replace(drawn, seed=15, max_tokens=40, grammar=schema(WEATHER)), 2, 32), adapter="code"
        ),
        replace(fixed[0], adapter="law"),
        *fixed,
    ]
    return [replace(one, request_id=f"k{number}") for number, one in enumerate(requests)]


def _request(params: SamplingParams, family: int, length: int) -> GenerationRequest:
    return GenerationRequest("", FAMILIES[family][:length], params)


def schema(wanted: object) -> Grammar:
    return Grammar("json_schema", json.dumps(wanted))


def called() -> Grammar:
    """A call of a tool that must be made."""
    return forced_grammar(ToolUse((TOOL,), forced=(TOOL,), several=False), TAGGED, {})


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a caller is told in the end."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    routing: str | None
    scored: tuple[int, ...]
    logprobs: tuple[float, ...]
    embedding: tuple[float, ...]

    @classmethod
    def of(cls, events: Items[TokenEvent]) -> Answer:
        scores = [one for event in events for one in (*event.prompt_logprobs, *event.logprobs)]
        known = [one for one in scores if one is not None]
        return cls(
            tuple(token for event in events for token in event.token_ids),
            "".join(event.text for event in events),
            events[-1].finish_reason,
            events[-1].routing,
            tuple(one.token_id for one in known),
            tuple(one.logprob for one in known),
            events[-1].embedding or (),
        )

    def check(self, expected: Answer) -> None:
        """Equal, but for the rounding of sums in another order."""
        assert self.exact == expected.exact
        assert self.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert self.embedding == pytest.approx(expected.embedding, abs=1e-4)

    @property
    def exact(self) -> tuple[object, ...]:
        return self.tokens, self.text, self.finish_reason, self.routing, self.scored


def ended_once(events: Iterable[TokenEvent]) -> bool:
    """Whether the last event is the only one that ends."""
    ends = [event.finish_reason is not None for event in events]
    return ends.count(True) == 1 and ends[-1]
