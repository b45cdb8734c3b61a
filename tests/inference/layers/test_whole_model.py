"""Whole forward passes: what must not change a bit of a token's logits, and what may change rounding only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from moe_ops import native
from moe_ops.linear import WeightFormat

LogitsOf = Callable[..., list[torch.Tensor]]

PROMPTS = [[(7 * i * i + 3 * i + n) % 250 + 8 for i in range(n)] for n in (70, 1, 37, 12, 140)]
compiled = pytest.mark.skipif(not native.available(), reason="the C++ kernels are not compiled")


@pytest.fixture(scope="module")
def whole_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, with every part."""
    path = tmp_path_factory.mktemp("whole")
    random_checkpoint_write(path=path, config={**TINY_V3, "num_hidden_layers": 2})
    return path


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_native_batched_is_alone_to_the_bit_on_any_threads(
    whole_dir: Path, logits_of: LogitsOf, two_threads: None, weights: WeightFormat
) -> None:
    model = load_model(whole_dir, weights=weights, native=True)
    chunks = [[64, 1, 1, 4], [1], [30, 7], [12], [100, 40]]
    together = logits_of(model, PROMPTS, chunks)
    torch.set_num_threads(1)
    for prompt, plan, found in zip(PROMPTS, chunks, together, strict=True):
        assert logits_of(model, [prompt], [plan])[0].equal(found)


@compiled
def test_native_checking_of_drafts_is_decoding_to_the_bit(whole_dir: Path, logits_of: LogitsOf) -> None:
    """Up to 16 tokens of a row give what they give one by one."""
    model = load_model(whole_dir, weights="int8", native=True)
    prompt = PROMPTS[0]
    drafted = logits_of(model, [prompt], [[40, 1, 3, 8, 16, 2]])[0]
    assert logits_of(model, [prompt], [[40, *[1] * 30]])[0].equal(drafted)


@compiled
@pytest.mark.parametrize(("weights", "tolerance"), [("float32", 5e-5), ("bfloat16", 2e-5)])
def test_native_equals_plain_torch(
    whole_dir: Path, logits_of: LogitsOf, weights: WeightFormat, tolerance: float
) -> None:
    """Of equal weights. Latents that are kept in bf16 may be rounded apart, and flip a choice of experts;
    where the processor multiplies bf16, all activations are rounded.
    """
    if weights == "bfloat16" and native.features()["isa"] == "bf16":
        tolerance = 2e-2
    found, expected = (
        torch.cat(logits_of(load_model(whole_dir, weights=weights, native=form), PROMPTS))
        for form in (True, False)
    )
    difference = (found - expected).abs()
    assert float(difference.median()) < tolerance
    if weights == "float32":
        assert float(difference.max()) < tolerance


def test_torch_chunked_and_batched_are_whole_and_alone(whole_dir: Path, logits_of: LogitsOf) -> None:
    model = load_model(whole_dir, native=False)
    alone = [logits_of(model, [prompt])[0] for prompt in PROMPTS]
    chunks = [[64, 1, 1, 4], [1], [5, 1, 30, 1], [12], [17, 123]]
    for found, expected in zip(logits_of(model, PROMPTS, chunks), alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_reference_mode_gives_the_same_bits_for_any_split(
    whole_dir: Path, logits_of: LogitsOf, data: st.DataObject
) -> None:
    model = load_model(whole_dir, reference=True)
    prompts = [prompt[:20] for prompt in PROMPTS]
    expected = [logits_of(model, [prompt])[0] for prompt in prompts]
    plans = []
    for prompt in prompts:
        cuts = sorted(data.draw(st.sets(st.integers(1, len(prompt)), max_size=3)) | {0, len(prompt)})
        plans.append([end - start for start, end in pairwise(cuts)])
    for found, wanted in zip(logits_of(model, prompts, plans), expected, strict=True):
        assert found.equal(wanted)


def test_reference_mode_is_near_the_others(whole_dir: Path, logits_of: LogitsOf) -> None:
    exact = torch.cat(logits_of(load_model(whole_dir, reference=True), PROMPTS[:3]))
    for form in (False, None):
        found = torch.cat(logits_of(load_model(whole_dir, native=form), PROMPTS[:3]))
        torch.testing.assert_close(found, exact, rtol=0, atol=5e-5)


def test_kernels_that_are_not_compiled_are_not_promised(
    whole_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(ValueError, match="not compiled"):
        load_model(whole_dir, native=True)
