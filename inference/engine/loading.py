"""From a checkpoint folder to an engine that is ready to step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.sampling.grammar import GrammarFactory
from inference.engine.types import EngineConfig
from inference.models.config import ModelConfig
from inference.models.loader import load_model
from inference.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine with what its front must know of the model."""

    engine: Engine
    tokenizer: Tokenizer
    model_config: ModelConfig
    max_model_len: int


def engine_load(model_dir: Path, config: EngineConfig) -> LoadedEngine:
    """Read the checkpoint folder. Raises `ConfigError`, `CheckpointError` or `TokenizerError`."""
    torch.set_num_threads(config.threads)
    tokenizer = Tokenizer.from_dir(model_dir)
    model = load_model(model_dir, weights=config.weights, mtp=config.speculate)
    engine = Engine(
        config=config,
        runner=Runner(model, config),
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
        grammars=GrammarFactory(tokenizer),
    )
    max_model_len = min(model.config.max_position_embeddings, config.pages * config.page_size)
    return LoadedEngine(engine, tokenizer, model.config, max_model_len)
