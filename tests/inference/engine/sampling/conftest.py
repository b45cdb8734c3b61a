"""Draws with short names, for the tests of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.engine.step import Draw
from inference.engine.types import SamplingParams
from inference.tokenizer import Tokenizer
from moe_ops import native
from moe_ops.sample import cpu

MakeDraw = Callable[..., Draw]


@pytest.fixture(scope="module", params=["torch", "native"])
def form(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tokens are chosen in plain torch, then by the C++ kernels where they are compiled."""
    if request.param == "native" and not native.available():
        pytest.skip("the kernels are not compiled")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr("moe_ops.sample.choose", cpu.choose)
            patch.setattr("moe_ops.sample.token_logprobs", cpu.token_logprobs)
        yield


@pytest.fixture(scope="session")
def draw_of() -> MakeDraw:
    """`draw_of(seed=…, index=…, text=…, prompt=…, grammar=…, **params)`; `text` includes `prompt` tokens."""
    return _draw


def _draw(
    *,
    seed: int = 3,
    index: int = 0,
    text: Sequence[int] = (),
    prompt: int = 0,
    grammar: Any = None,
    **params: Any,
) -> Draw:
    return Draw(
        params=SamplingParams(max_tokens=9, **params),
        seed=seed,
        index=index,
        tokens=list(text),
        prompt_tokens=prompt,
        grammar=grammar,
    )


@pytest.fixture(scope="session")
def nano_tokenizer() -> Tokenizer:
    """The tokenizer of the published model."""
    return Tokenizer.from_dir(Path(__file__).parents[4] / "inference/models/nano")
