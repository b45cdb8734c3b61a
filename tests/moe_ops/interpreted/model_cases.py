"""A whole model on Triton's kernels. Run by `test_triton.py` in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from inference.engine.assembly import assemble
from inference.engine.packing import arrange
from inference.engine.sequence import Sequence
from inference.engine.step import Row
from inference.engine.types import GenerationRequest, SamplingParams
from inference.layers.forms import TORCH, Forms, Packing
from inference.layers.gpu import TRITON
from inference.models import deepseek_build
from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.packed import PackedStore
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

PAGE = 4


@torch.inference_mode()
def logits(path: Path, forms: Forms) -> list[torch.Tensor]:
    """Of two prompts, and then of one more token of each."""
    with Checkpoint(path) as checkpoint:
        config = ModelConfig.from_dir(path)
        model = deepseek_build.build(config, checkpoint, Packing("float32", forms), PackedStore(None), False)
    cache = model.new_cache(pages=12, page_size=PAGE)
    prompts = [tuple(range(20, 27)), (99, 12, 250)]
    found = []
    for first in (0, 1):
        rows = []
        for number, prompt in enumerate(prompts):
            request = GenerationRequest(f"r{number}", prompt, SamplingParams(max_tokens=1))
            start, tokens = (len(prompt), (77,)) if first else (0, prompt)
            rows.append(Row(Sequence(request, number, 0), tokens, start, tuple(range(number, number + 6, 2))))
        batch = assemble(arrange(rows), page_size=PAGE, turn_XR=model.turn_XR)
        batch = replace(batch, last_S=torch.arange(len(batch.token_T)))
        found.append(model.forward(batch, cache).logits_SV)
    return found


def test_a_model_computes_what_plain_torch_does(tmp_path: Path) -> None:
    random_checkpoint_write(path=tmp_path, config=TINY_V3)
    for found, expected in zip(logits(tmp_path, TRITON), logits(tmp_path, TORCH), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
