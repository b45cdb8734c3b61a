"""Our engine as a side: `python -m bench.peers.ours MODEL WEIGHTS THREADS PACKED`.

As in a worker the weights are mapped from the folder PACKED of packed copies, which `bench.peers.pack` fills.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
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
_SPARE_PAGES = 1  # for each sequence: with none left, the last ones would wait
_STEP_TOKENS = EngineConfig().step_token_budget


class OurSide:
    """One engine over one loaded model, as a worker has; `stats` are those of the latest timed decoding.

    It is made anew, with more pages, when a work needs more than there are. What is decoded again finds its
    prompts in the prefix cache.
    """

    def __init__(self, model: CausalModel, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._prefills = 0
        self._config = EngineConfig(page_size=PAGE, pages=1, max_running=1, threads=threads)
        self._engine: Engine | None = None
        self.stats: tuple[EngineStats, EngineStats] | None = None

    def rate(self, work: Work) -> float:
        return self._prefill(work) if work.kind == "prefill" else self._decode(work)

    @property
    def cache_bytes_per_token(self) -> float:
        """What the paged cache takes for each token that it has room for."""
        pages = 64
        return self._model.new_cache(pages=pages, page_size=PAGE).nbytes / (pages * PAGE)

    def _decode(self, work: Work) -> float:
        """Steps in which every sequence decodes; the prompts are read before the clock starts."""
        engine, names = self._engine_for(work), [f"bench-{number}" for number in range(work.batch)]
        for name, prompt in zip(names, work.prompts(self._model.config.vocab_size), strict=True):
            params = SamplingParams(max_tokens=_tokens(work) - work.prompt, temperature=0, ignore_eos=True)
            engine.submit(GenerationRequest(name, tuple(prompt), params))
        while len(engine.step()) < work.batch:
            if not engine.has_work:
                raise RuntimeError("a sequence ended before the last one had begun")
        before, start = engine.stats(), time.perf_counter()
        produced = sum(len(engine.step()) for _ in range(work.new))
        elapsed = time.perf_counter() - start
        self.stats = before, engine.stats()
        for name in names:
            engine.cancel(name)
        if produced != work.batch * work.new:
            raise RuntimeError("a sequence ended early")
        return produced / elapsed

    def _prefill(self, work: Work) -> float:
        """A prompt that was not seen before."""
        self._prefills += 1
        engine = self._engine_for(work)
        (prompt,) = work.prompts(self._model.config.vocab_size, self._prefills)
        params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
        start = time.perf_counter()
        engine.submit(GenerationRequest("bench", tuple(prompt), params))
        while engine.has_work:
            engine.step()
        return work.prompt / (time.perf_counter() - start)

    def _engine_for(self, work: Work) -> Engine:
        """The engine, with room for the work."""
        old, pages = self._config, work.batch * (-(-_tokens(work) // PAGE) + _SPARE_PAGES)
        if self._engine is None or pages > old.pages or work.batch > old.max_running:
            self._engine = None  # its cache's memory first
            self._config = replace(
                old, pages=max(pages, old.pages), max_running=max(work.batch, old.max_running)
            )
            runner, nothing = Runner(self._model, self._config), (b"",) * self._model.config.vocab_size
            self._engine = Engine(config=self._config, runner=runner, eos_ids=(), token_bytes=nothing)
        return self._engine


def _tokens(work: Work) -> int:
    """Room that one sequence needs: whose prompt is read first decodes until the last one has begun."""
    ahead = -(-work.batch * work.prompt // (_STEP_TOKENS - work.batch)) + 1
    return work.prompt + work.new + (ahead if work.kind == "decode" else 1)


def load(
    path: Path, weights: WeightFormat, threads: int, packed: Path | None = None
) -> tuple[OurSide, dict[str, float]]:
    """The side, the seconds that loading the model took, and the bytes that its cache takes for a token."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    side = OurSide(load_model(path, weights=weights, cache_dir=packed), threads)
    return side, {
        "ready": time.perf_counter() - start,
        "cache_bytes_per_token": side.cache_bytes_per_token,
    }


def main() -> None:
    path, name, threads, packed = sys.argv[1:5]
    weights: WeightFormat = next(one for one in get_args(WeightFormat) if one == name)
    serve(lambda: load(Path(path), weights, int(threads), Path(packed)))


if __name__ == "__main__":
    main()
