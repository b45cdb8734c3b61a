"""Tiny checkpoints, and a way to get all logits out of a model whatever the batching."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Items
from pathlib import Path

import pytest
import torch

from inference.engine import GenerationRequest, SamplingParams
from inference.engine.assembly import assemble
from inference.engine.packing import arrange
from inference.engine.sequence import Sequence
from inference.engine.step import Draw, Row
from inference.models.deepseek import DeepseekModel
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

LogitsOf = Callable[..., list[torch.Tensor]]

PAGE_SIZE = 4
GREEDY = Draw(SamplingParams(max_tokens=1, temperature=0), seed=0, index=0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with groups, a non-zero bias, low-rank queries and YaRN, in two files."""
    path = tmp_path_factory.mktemp("tiny")
    random_checkpoint_write(path=path, config=TINY_V3, shards=2)
    return path


@pytest.fixture(scope="session")
def logits_of() -> LogitsOf:
    """`logits_of(model, prompts, chunks=…)`: logits of every token of each prompt, computed together.

    `chunks[i]` are the lengths in which prompt i is fed, one chunk a pass (default: all at once).
    """
    return _logits_of


@torch.inference_mode()
def _logits_of(
    model: DeepseekModel, prompts: Items[Items[int]], chunks: Items[Items[int]] | None = None
) -> list[torch.Tensor]:
    pages_each = max(-(-len(prompt) // PAGE_SIZE) for prompt in prompts)
    cache = model.new_cache(pages=pages_each * len(prompts) + 1, page_size=PAGE_SIZE)
    # Pages are handed out backwards and interleaved, so that nothing works by being contiguous.
    tables = [
        tuple(pages_each * len(prompts) - place * len(prompts) - index for place in range(pages_each))
        for index in range(len(prompts))
    ]
    plans = chunks or [[len(prompt)] for prompt in prompts]
    found: list[list[torch.Tensor]] = [[] for _ in prompts]
    done = [0] * len(prompts)
    for turn in range(max(map(len, plans))):
        active = [index for index, plan in enumerate(plans) if turn < len(plan)]
        rows = []
        for index in active:
            end = done[index] + plans[index][turn]
            rows.append(_row(prompts[index], done[index], end, tables[index], index))
            done[index] = end
        rows = arrange(rows)
        active = [row.sequence.arrival for row in rows]
        batch = assemble(rows, page_size=PAGE_SIZE, turn_XR=model.turn_XR)
        batch = dataclasses.replace(batch, last_S=torch.arange(len(batch.token_T)))
        parts = torch.split(model.forward(batch, cache).logits_SV, [len(row.tokens) for row in rows])
        for index, part in zip(active, parts, strict=True):
            found[index].append(part)
    assert done == [len(prompt) for prompt in prompts]
    return [torch.cat(parts) for parts in found]


def _row(prompt: Items[int], start: int, end: int, pages: tuple[int, ...], arrival: int) -> Row:
    request = GenerationRequest(f"r{arrival}", tuple(prompt), SamplingParams(max_tokens=1))
    pages = pages[: -(-end // PAGE_SIZE)]
    return Row(Sequence(request, arrival, 0), tuple(prompt[start:end]), start, pages, (GREEDY,))
