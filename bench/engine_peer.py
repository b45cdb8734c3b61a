"""transformers' forward pass with its own cache, timed the way the engine is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Peer:
    """One checkpoint in transformers, fp32, with its default attention and experts."""

    def __init__(self, path: Path) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self._model = model.eval()

    @torch.inference_mode()
    def decode_rate(self, prompts: list[list[int]], new: int) -> float:
        """Tokens per second of greedy decoding after the prompts have been read."""
        out = self._model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        token_B1 = out.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(new - 1):
            out = self._model(token_B1, past_key_values=out.past_key_values, use_cache=True)
            token_B1 = out.logits.argmax(-1)
        return len(prompts) * (new - 1) / (time.perf_counter() - start)

    @torch.inference_mode()
    def prefill_rate(self, prompt: list[int]) -> float:
        """Prompt tokens per second until the first new token."""
        ids = torch.tensor([prompt])
        start = time.perf_counter()
        self._model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1)
        return len(prompt) / (time.perf_counter() - start)
