"""A tiny model with a prediction module, engines on it, and requests for them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.sampling.grammar import GrammarFactory
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams, TokenEvent
from inference.layers.batch import FlatBatch
from inference.models.deepseek import DeepseekModel
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.tokenizer import Tokenizer

Events = dict[str, list[TokenEvent]]


class Guesser:
    """Stands for a trained prediction module: knows what followed each pair of tokens in some texts."""

    def __init__(self, texts: Items[Items[int]], vocabulary: int) -> None:
        self._next = {(text[i], text[i + 1]): text[i + 2] for text in texts for i in range(len(text) - 2)}
        self._vocabulary = vocabulary

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        assert len(hidden_TD) == len(next_token_T) == len(batch.token_T)
        logits_SV = torch.zeros(len(batch.last_S), self._vocabulary)
        for row, place in enumerate(batch.last_S.tolist()):
            pair = int(batch.token_T[place]), int(next_token_T[place])
            logits_SV[row, self._next.get(pair, 9)] = 50.0
        return logits_SV


class Table:
    """A tiny model served by engines of any configuration."""

    def __init__(self, folder: Path) -> None:
        model = load_model(folder, mtp=True)
        assert isinstance(model, DeepseekModel)
        self.model = model
        self.tokenizer = Tokenizer.from_dir(folder)
        self.module = self.model.mtp
        self.config = EngineConfig(page_size=8, pages=256, max_running=32, step_token_budget=256)

    def engine(self, clock: Callable[[], float] = time.perf_counter, **fields: Any) -> Engine:
        config = dataclasses.replace(self.config, **fields)
        return Engine(
            config=config,
            runner=Runner(self.model, config),
            eos_ids=self.tokenizer.eos_ids,
            token_bytes=self.tokenizer.token_bytes,
            grammars=GrammarFactory(self.tokenizer),
            clock=clock,
        )

    def serve(self, requests: Items[GenerationRequest], **fields: Any) -> Events:
        return serve(self.engine(**fields), requests)

    def guess(self, texts: Items[Items[int]]) -> None:
        """Let the model's drafts be mostly right about `texts`."""
        self.model.mtp = Guesser(texts, self.model.config.vocab_size)


def serve(engine: Engine, requests: Items[GenerationRequest]) -> Events:
    for one in requests:
        engine.submit(one)
    events: Events = {one.request_id: [] for one in requests}
    for _ in range(5000):
        if not engine.has_work:
            engine.check()
            return events
        for event in engine.step():
            events[event.request_id].append(event)
    raise AssertionError("the requests do not finish")


@pytest.fixture(scope="session")
def _table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    path = tmp_path_factory.mktemp("drafting")
    random_checkpoint_write(path=path, config={**TINY_V3, "num_nextn_predict_layers": 1})
    return Table(path)


@pytest.fixture
def table(_table: Table) -> Any:
    yield _table
    _table.model.mtp = _table.module


@pytest.fixture
def make_request() -> Callable[..., GenerationRequest]:
    """`make_request(number, prompt length, **sampling and request fields)`; greedy, 12 tokens."""
    return _request


def _request(number: int, length: int, **fields: Any) -> GenerationRequest:
    prompt = tuple((number * 37 + i * i * 11 + i) % 250 + 8 for i in range(length))
    known = {field.name for field in dataclasses.fields(GenerationRequest)}
    outer = {name: value for name, value in fields.items() if name in known}
    inner = {name: value for name, value in fields.items() if name not in known}
    params = SamplingParams(**({"max_tokens": 12, "temperature": 0.0} | inner))
    base = GenerationRequest(f"r{number}", prompt, params)
    return dataclasses.replace(base, **outer)
