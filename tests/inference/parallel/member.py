"""One process of a group that serves a model, for `test_parallel.py`: saves logits and served tokens.

Usage: member.py RANK SIZE FOLDER LAYOUT
FOLDER holds the checkpoint; a group of one loads and serves as if there were no groups.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file

from inference.engine.assembly import assemble
from inference.engine.changes import Changes
from inference.engine.core import Engine
from inference.engine.packing import arrange
from inference.engine.runner import Runner
from inference.engine.sequence import Sequence
from inference.engine.step import Row
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.parallel.loading import load_part
from inference.parallel.ranks import Ranks
from inference.parallel.runner import LeadingModel, ParallelRunner, follow
from inference.parallel.sharding import ExpertLayout
from inference.tokenizer import Tokenizer

PAGE_SIZE = 4
CONFIG = EngineConfig(page_size=PAGE_SIZE, pages=128, max_running=4, step_token_budget=24, speculate=True)


def main(rank: int, size: int, folder: Path, layout: ExpertLayout) -> None:
    torch.set_num_threads(1)
    checkpoint, name = folder / "checkpoint", f"{layout}{size}"
    out = folder / f"{name}.safetensors"
    if size == 1:
        model: CausalModel = load_model(checkpoint, mtp=True)
        save_file(served(Runner(model, CONFIG), checkpoint) | {"logits": logits(model)}, out)
        return
    ranks = Ranks.join(rank=rank, size=size, meeting_file=folder / f"{name}.meeting")
    model = load_part(checkpoint, ranks, experts=layout, mtp=True)
    if ranks.leads:
        runner = ParallelRunner(model, CONFIG, ranks, changes=Changes(counted=len(model.routers)))
        save_file(served(runner, checkpoint) | {"logits": logits(LeadingModel(model, ranks))}, out)
        runner.close()
    else:
        follow(model, ranks)
    ranks.leave()


def served(runner: Runner, checkpoint: Path) -> dict[str, torch.Tensor]:
    """Tokens of some requests, greedy and drawn, of which one fails, in one engine; `experts` are its counts
    of routed layers that were looked at and of distinct experts in them.
    """
    tokenizer = Tokenizer.from_dir(checkpoint)
    engine = Engine(
        config=CONFIG,
        runner=runner,
        changes=runner.changes,
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
    )
    requests = [request(number, 5 + 13 * number, 0.9 * (number % 2)) for number in range(6)]
    tokens: dict[str, list[int]] = {one.request_id: [] for one in requests}
    for one in requests:
        engine.submit(one)
    for _ in range(500):
        if not engine.has_work:
            break
        for event in engine.step():
            tokens[event.request_id] += event.token_ids
            if event.finish_reason not in (None, "stop", "length"):
                raise AssertionError(f"{event.request_id} ended with {event.finish_reason}")
    runner.scrub((0, 1))
    stats = engine.stats()
    tokens["experts"] = [stats.experts_layers, stats.experts_touched]
    return {name: torch.tensor(ids) for name, ids in tokens.items()}


@torch.inference_mode()
def logits(model: CausalModel) -> torch.Tensor:
    """Those of all tokens of two prompts, a short and a long one."""
    lengths, each = (7, 90), 24
    cache = model.new_cache(pages=each * len(lengths), page_size=PAGE_SIZE)
    rows = []
    for number, length in enumerate(lengths):
        one = request(number, length, 0.0)
        pages = tuple(range(each * number, each * number + -(-length // PAGE_SIZE)))
        rows.append(Row(Sequence(one, number, 0), one.prompt_token_ids, 0, pages))
    batch = assemble(arrange(rows), page_size=PAGE_SIZE, turn_XR=model.turn_XR)
    return model.forward(replace(batch, last_S=torch.arange(len(batch.token_T))), cache).logits_SV


def request(number: int, length: int, temperature: float) -> GenerationRequest:
    prompt = tuple((number * 37 + i * i * 11 + i) % 250 + 8 for i in range(length))
    params = SamplingParams(max_tokens=12, seed=number, temperature=temperature)
    return GenerationRequest(f"r{number}", prompt, params)


if __name__ == "__main__":
    place, size, folder, layout = sys.argv[1:]
    main(int(place), int(size), Path(folder), cast(ExpertLayout, layout))
