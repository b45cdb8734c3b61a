"""transformers as a side: `python -m bench.peers.hf MODEL DTYPE EXPERTS THREADS`.

EXPERTS names its back-end for experts: `eager`, `grouped_mm` or `batched_mm`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.peers.work import Work, serve


class HfSide:
    """The forward pass with its own cache, greedy."""

    def __init__(self, path: Path, dtype: torch.dtype, experts: str) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, experts_implementation=experts)
        self._model = model.eval()

    @torch.inference_mode()
    def rate(self, work: Work) -> float:
        prompts = torch.tensor(work.prompts(self._model.config.vocab_size))
        start = time.perf_counter()
        out = self._model(prompts, use_cache=True, logits_to_keep=1)
        token_B1 = out.logits[:, -1:].argmax(-1)
        if work.kind == "prefill":
            return work.prompt / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(work.new):
            out = self._model(token_B1, past_key_values=out.past_key_values, use_cache=True)
            token_B1 = out.logits.argmax(-1)
        return work.batch * work.new / (time.perf_counter() - start)


def main() -> None:
    path, dtype, experts, threads = sys.argv[1:5]
    torch.set_num_threads(int(threads))

    def load() -> tuple[HfSide, dict[str, float]]:
        start = time.perf_counter()
        side = HfSide(Path(path), getattr(torch, dtype), experts)
        return side, {"ready": time.perf_counter() - start}

    serve(load)


if __name__ == "__main__":
    main()
