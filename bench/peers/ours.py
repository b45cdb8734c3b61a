"""Our engine as a side: `python -m bench.peers.ours MODEL WEIGHTS THREADS`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import get_args

import torch

from bench.peers.work import Work, serve
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import EngineConfig, EngineStats, GenerationRequest, SamplingParams
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from moe_ops.linear import WeightFormat

PAGE = 16


class OurSide:
    """Engine and runner over one loaded model; `stats` are those of the latest work's timed part."""

    def __init__(self, model: CausalModel, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._works = 0
        self.stats: tuple[EngineStats, EngineStats] | None = None

    def rate(self, work: Work) -> float:
        self._works += 1
        engine = self._engine(work)
        return self._prefill(engine, work) if work.kind == "prefill" else self._decode(engine, work)

    def _decode(self, engine: Engine, work: Work) -> float:
        """Steps in which every sequence decodes; the prompts are read before the clock starts."""
        for number, prompt in enumerate(work.prompts(self._model.config.vocab_size, self._works)):
            params = SamplingParams(max_tokens=work.new + work.batch + 1, temperature=0, ignore_eos=True)
            engine.submit(GenerationRequest(f"bench-{number}", tuple(prompt), params))
        while len(engine.step()) < work.batch:
            pass
        before, start = engine.stats(), time.perf_counter()
        produced = sum(len(engine.step()) for _ in range(work.new))
        elapsed = time.perf_counter() - start
        self.stats = before, engine.stats()
        if produced != work.batch * work.new:
            raise RuntimeError("a sequence ended early")
        return produced / elapsed

    def _prefill(self, engine: Engine, work: Work) -> float:
        (prompt,) = work.prompts(self._model.config.vocab_size, self._works)
        params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
        start = time.perf_counter()
        engine.submit(GenerationRequest("bench", tuple(prompt), params))
        while engine.has_work:
            engine.step()
        return work.prompt / (time.perf_counter() - start)

    def _engine(self, work: Work) -> Engine:
        """As a worker would be set up, with the cache that the work needs."""
        longest = work.prompt + work.new + work.batch + 1
        config = EngineConfig(
            page_size=PAGE,
            pages=work.batch * -(-longest // PAGE) + 1,
            max_running=work.batch,
            threads=self._threads,
        )
        nothing = (b"",) * self._model.config.vocab_size
        runner = Runner(self._model, config)
        return Engine(config=config, runner=runner, eos_ids=(), token_bytes=nothing)


def load(path: Path, weights: WeightFormat, threads: int) -> tuple[OurSide, float]:
    """The side and the seconds that loading the model took."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = load_model(path, weights=weights)
    return OurSide(model, threads), time.perf_counter() - start


def main() -> None:
    path, name, threads = sys.argv[1:4]
    weights: WeightFormat = next(one for one in get_args(WeightFormat) if one == name)
    serve(lambda: load(Path(path), weights, int(threads)))


if __name__ == "__main__":
    main()
