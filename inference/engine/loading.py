"""From a checkpoint folder to an engine that is ready to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from inference.adapters.store import AdapterStore
from inference.adapters.targets import adapted_modules
from inference.engine.changes import Changes, profiles_load
from inference.engine.core import Engine
from inference.engine.rehearsal import FIRST_STEPS, full_step_s
from inference.engine.runner import Runner
from inference.engine.sampling.grammar import GrammarFactory
from inference.engine.types import EngineConfig
from inference.layers.placement import DeviceError, on_device
from inference.models.config import ModelConfig
from inference.models.interface import Architecture, CausalModel
from inference.models.loader import load_model
from inference.parallel.group import Group
from inference.parallel.runner import ParallelRunner
from inference.tokenizer import Tokenizer
from moe_ops import native


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine with what its front must know of the model; `period_s` is what its beat begins with."""

    engine: Engine
    tokenizer: Tokenizer
    model_config: Architecture
    max_model_len: int
    period_s: float = 0.0


def engine_load(model_dir: Path, config: EngineConfig) -> LoadedEngine:
    """Read the checkpoint folder. Raises `ConfigError`, `CheckpointError`, `TokenizerError`, `ProfileError`
    or `DeviceError`.
    """
    try:
        return _load(model_dir, config)
    except RuntimeError as error:  # too little memory, no compiler for programs, a broken driver
        if config.device == "cpu":
            raise
        advice = "model and cache must fit; fewer --pages make the cache smaller"
        raise DeviceError(f"device {config.device}: {error} ({advice})") from error


def _load(model_dir: Path, config: EngineConfig) -> LoadedEngine:
    torch.set_num_threads(config.threads_a_rank)
    tokenizer = Tokenizer.from_dir(model_dir)
    model, runner = _shared(model_dir, config) if config.ranks > 1 else _whole(model_dir, config)
    engine = Engine(
        config=config,
        runner=runner,
        changes=runner.changes,
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
        grammars=GrammarFactory(tokenizer),
    )
    native.release_threads()  # another thread may run the engine
    max_model_len = min(model.config.max_position_embeddings, config.pages * config.page_size)
    period_s = 0.0
    rehearse = partial(
        full_step_s, runner, config, max_model_len=max_model_len, vocab_size=model.config.vocab_size
    )
    if config.device != "cpu":
        rehearse(steps=FIRST_STEPS, limit_s=math.inf)
    if config.paced:
        period_s = rehearse()
    return LoadedEngine(engine, tokenizer, model.config, max_model_len, period_s)


def _whole(model_dir: Path, config: EngineConfig) -> tuple[CausalModel, Runner]:
    cache_dir = None if config.cache_dir is None else Path(config.cache_dir)
    model = load_model(
        model_dir,
        weights=config.weights,
        activations=config.activations,
        mtp=config.speculate,
        cache_dir=cache_dir,
        place=None if config.device == "cpu" else on_device(config.device),
        rows=config.max_running,
    )
    return model, Runner(model, config, changes=_changes(model, config))


def _shared(model_dir: Path, config: EngineConfig) -> tuple[CausalModel, Runner]:
    """This process's part of the model, the other processes following."""
    group = Group(model_dir, config)
    model, ranks = group.part.load(0)

    def end() -> None:
        group.close()
        ranks.leave()

    return model, ParallelRunner(model, config, ranks, changes=_changes(model, config), on_end=end)


def _changes(model: CausalModel, config: EngineConfig) -> Changes:
    """Adapters and profiles, which need an architecture that has the places for them, all on one rank;
    elsewhere experts are counted.
    """
    if not isinstance(model.config, ModelConfig) or config.ranks > 1:
        return Changes(profiles=profiles_load(config.routing_profiles), counted=len(model.routers))
    adapters = AdapterStore(
        modules=adapted_modules(model.config),
        limit=config.adapters_max,
        rank_max=config.adapter_rank_max,
    )
    return Changes(
        adapters=adapters,
        profiles=profiles_load(config.routing_profiles),
        routers=model.routers,
        vocabulary=model.config.vocab_size,
    )
