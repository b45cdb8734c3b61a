"""vLLM on the CPU as a side, run by its own environment: `python -m bench.peers.vllm_side MODEL DTYPE MODE`.

MODE is `eager` or `compiled`. The time of decoding is that of the whole generation less that of the first
token, each measured on prompts that the other has not seen.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

from bench.peers.work import Work, serve


class VllmSide:
    """vLLM's offline interface; token ids in, nothing turned into text."""

    def __init__(self, path: str, dtype: str, mode: str) -> None:
        self._vllm: Any = importlib.import_module("vllm")
        self._llm: Any = self._vllm.LLM(
            model=path,
            dtype=dtype,
            enforce_eager=mode == "eager",
            max_model_len=2048,
            max_num_seqs=32,
            max_num_batched_tokens=4096,
            enable_prefix_caching=False,
            disable_log_stats=True,
        )
        self._vocabulary = int(self._llm.model_config.get_vocab_size())
        self._calls = 0

    def rate(self, work: Work) -> float:
        first_s = self._seconds(work, 1)
        if work.kind == "prefill":
            return work.prompt / first_s
        return work.batch * work.new / (self._seconds(work, work.new + 1) - first_s)

    def _seconds(self, work: Work, new: int) -> float:
        self._calls += 1
        prompts = [{"prompt_token_ids": ids} for ids in work.prompts(self._vocabulary, self._calls)]
        params = self._vllm.SamplingParams(
            max_tokens=new, min_tokens=new, temperature=0, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        self._llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - start


def main() -> None:
    path, dtype, mode = sys.argv[1:4]

    def load() -> tuple[VllmSide, dict[str, float]]:
        start = time.perf_counter()
        side = VllmSide(path, dtype, mode)
        return side, {"ready": time.perf_counter() - start}

    serve(load)


if __name__ == "__main__":
    main()
