"""Models, forms of weights and groups of processes to compare, and what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inference.engine.assembly import assemble
from inference.engine.core import Engine
from inference.engine.packing import arrange
from inference.engine.runner import Runner
from inference.engine.sequence import Sequence
from inference.engine.speculation import SpeculationControl
from inference.engine.step import Row
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models.interface import CausalModel
from inference.models.random_checkpoint import TINY_V3
from inference.parallel.sharding import ExpertLayout
from inference.tokenizer import Tokenizer
from moe_ops.linear import WeightFormat

Found = dict[str, torch.Tensor]

PAGE_SIZE = 4
MADE = 8  # tokens of each completion
CONFIG = EngineConfig(page_size=PAGE_SIZE, pages=160, max_running=4, step_token_budget=24, speculate=True)
V3 = {**TINY_V3, "num_nextn_predict_layers": 1}
V2 = {
    **TINY_V3, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
    "scoring_func": "softmax", "topk_method": "group_limited_greedy", "norm_topk_prob": False,
    "routed_scaling_factor": 1.0, "n_shared_experts": 2,
}  # fmt: skip
MODELS: dict[str, dict[str, object]] = {
    "v3": V3,
    # parts begin inside blocks
    "v3 fp8": {**V3, "quantization_config": {"quant_method": "fp8", "weight_block_size": [24, 24]}},
    "v2": {**V2, "q_lora_rank": None},
    "v2 low rank": {**V2, "n_shared_experts": 0, "rope_scaling": None, "topk_method": "greedy", "n_group": 1,
                    "topk_group": 1},
    "thirds": {**V3, "num_attention_heads": 6, "n_routed_experts": 12, "intermediate_size": 96,
               "moe_intermediate_size": 24},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One of `MODELS` with weights of a form, shared by some processes."""

    model: str
    weights: WeightFormat
    size: int
    layout: ExpertLayout

    @property
    def name(self) -> str:
        return f"{self.model} {self.weights} {self.size} {self.layout}"


def _cases() -> Iterator[Case]:
    pairs: tuple[tuple[str, WeightFormat], ...] = (
        ("v3", "float32"), ("v3", "bfloat16"), ("v3", "int8"), ("v3", "int4"), ("v3 fp8", "float32"),
        ("v3 fp8", "int8"), ("v2", "float32"), ("v2", "int8"), ("v2 low rank", "float32"),
        ("v2 low rank", "int4"),
    )  # fmt: skip
    for model, weights in pairs:
        yield Case(model, weights, 2, "whole")
        yield Case(model, weights, 2, "cut")
    yield Case("thirds", "float32", 3, "whole")
    yield Case("thirds", "int8", 3, "cut")
    yield Case("v3", "float32", 4, "whole")
    yield Case("v2", "int8", 4, "cut")


CASES = tuple(_cases())

TEXTS = [
    tuple((number * 41 + i * i * 7 + i) % 250 + 8 for i in range(83 * number + 7)) for number in range(2)
]


class AlwaysDraft(SpeculationControl):
    """Drafts in every step, however long that takes."""

    def wanted(self, running: int, *, reading: bool) -> bool:
        return True


def served(runner: Runner, folder: Path) -> Found:
    """Prompt and completion of some requests, greedy and drawn, and the completion's log probabilities. They
    are read in chunks; some come again, with their prompts in the cache. `counts`: cached,
    drafted and accepted tokens; `experts`: layers that were looked at and distinct experts in them.
    """
    tokenizer = Tokenizer.from_dir(folder)
    engine = Engine(
        config=CONFIG,
        runner=runner,
        changes=runner.changes,
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
        speculation=AlwaysDraft() if runner.can_draft else None,
    )
    found: Found = {}
    for wave, numbers in enumerate((range(5), range(2, 5))):
        found |= _together(engine, [request(wave, number) for number in numbers])
    runner.scrub((0, 1))
    stats = engine.stats()
    found["counts"] = torch.tensor([stats.cached_tokens, stats.drafted_tokens, stats.accepted_tokens])
    found["experts"] = torch.tensor([stats.experts_layers, stats.experts_touched])
    return found


def _together(engine: Engine, requests: Items[GenerationRequest]) -> Found:
    tokens = {one.request_id: list(one.prompt_token_ids) for one in requests}
    scores: dict[str, list[float]] = {one.request_id: [] for one in requests}
    for one in requests:
        engine.submit(one)
    while engine.has_work:
        for event in engine.step():
            tokens[event.request_id] += event.token_ids
            scores[event.request_id] += [score.logprob for score in event.logprobs]
            if event.finish_reason not in (None, "stop", "length"):
                raise AssertionError(f"{event.request_id} ended with {event.finish_reason}")
    named = {f"text {name}": torch.tensor(ids) for name, ids in tokens.items()}
    return named | {f"scores {name}": torch.tensor(found) for name, found in scores.items()}


def request(wave: int, number: int) -> GenerationRequest:
    """`number` of a `wave`; those of one number are equal."""
    length = 5 + 13 * number
    prompt = tuple((number * 37 + i * i * 11 + i) % 250 + 8 for i in range(length))
    params = SamplingParams(
        max_tokens=MADE, seed=number, temperature=0.9 * (number % 2), logprobs=0, ignore_eos=True
    )
    return GenerationRequest(f"{wave} {number}", prompt, params)


@torch.inference_mode()
def computed(model: CausalModel, texts: Items[tuple[int, ...]]) -> Found:
    """Log probabilities after every token of `texts`, and those that the prediction module gives."""
    each = -(-max(map(len, texts)) // PAGE_SIZE)
    cache = model.new_cache(pages=each * len(texts), page_size=PAGE_SIZE)
    rows = []
    for number, text in enumerate(texts):
        pages = tuple(range(each * number, each * number + -(-len(text) // PAGE_SIZE)))
        one = GenerationRequest(f"{number}", text, SamplingParams(max_tokens=1))
        rows.append(Row(Sequence(one, number, 0), text, 0, pages))
    rows = arrange(rows)
    batch = assemble(rows, page_size=PAGE_SIZE, turn_XR=model.turn_XR)
    batch = replace(batch, last_S=torch.arange(len(batch.token_T)))
    logits_TV, hidden_TD = model.forward(batch, cache)
    ends = [len(row.tokens) for row in rows]
    order = torch.argsort(torch.tensor([row.sequence.arrival for row in rows])).tolist()
    found = {"after": _in_order(logits_TV, ends, order)}
    if model.mtp is not None:
        following = torch.cat([torch.tensor([*row.tokens[1:], 9]) for row in rows])
        found["drafts"] = _in_order(model.mtp.forward(batch, hidden_TD, following, cache), ends, order)
    return found


def _in_order(logits_TV: torch.Tensor, lengths: list[int], order: list[int]) -> torch.Tensor:
    parts = logits_TV.log_softmax(1).split(lengths)
    return torch.cat([parts[place] for place in order])
