"""The cases of the kernels' bench: both sides compute the same, and what they must do at least is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bench.kernel_attention import attention_cases
from bench.kernel_case import Case, Work, turns
from bench.kernel_lora import lora_cases
from bench.kernel_products import expert_operations, matrices, product_cases
from bench.kernel_tokens import token_cases
from inference.models.config import ModelConfig
from inference.models.sizes import SIZES

TINY = ModelConfig.from_dict({**SIZES["tiny"], "topk_method": "greedy", "scoring_func": "softmax"})
MEDIUM = ModelConfig.from_dict(SIZES["M"])


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of everything."""
    for module in ("bench.kernel_case", "bench.kernel_lora", "bench.kernel_products"):
        monkeypatch.setattr(f"{module}.BEYOND_CACHES", 1)


def tiny_cases() -> Iterator[Case]:
    torch.manual_seed(0)
    yield from product_cases(TINY, "float32", (3,))
    yield from attention_cases(TINY, "float32", decode=((2, 20),), expand=((5, 0), (7, 18)), store=(3,))
    yield from token_cases(TINY, tokens=(3,), batches=(2,))
    yield from lora_cases(TINY, "float32", (2,))


def written(case: Case, work: Work) -> list[torch.Tensor]:
    """What one run wrote; routers choose in no particular order."""
    return [one.sort().values if case.name.startswith("router") else one for one in work()]


def test_kernels_compute_what_plain_torch_does() -> None:
    names = []
    for case in tiny_cases():
        for _ in range(3):
            for ours, theirs in zip(written(case, case.kernel), written(case, case.peer), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=case.name)
        names.append(case.name)
    assert len(names) == len(set(names)) == 6 + 4 + 6 + 2


def test_what_decode_attention_must_do_is_counted() -> None:
    (case,) = attention_cases(MEDIUM, "int8", decode=((2, 100),), expand=(), store=())
    assert case.operations == 2 * 2 * 16 * 100 * (576 + 512)  # scores and sums, for each head and position
    assert case.products == 2 * 2 * 16 * 512 * (128 + 128)  # queries to latents, latents to values
    halves = 2 * 16 * 128 * 512  # keys' and values'
    assert case.read == halves * (1 + 2 / 128) + 2 * 100 * 576 * 2


def test_what_new_tokens_must_do_is_counted() -> None:
    (case,) = attention_cases(MEDIUM, "int8", decode=(), expand=((4, 10),), store=())
    seen = 11 + 12 + 13 + 14
    assert case.operations == 2 * 16 * seen * (192 + 128)
    assert case.products == 2 * 14 * 4096 * 512
    assert case.read == 4096 * 512 * (1 + 2 / 128) + 14 * 576 * 2


def test_what_experts_and_matrices_must_do_is_counted() -> None:
    assert matrices(MEDIUM)["q_proj"] == (3072, 1024)
    assert matrices(MEDIUM)["kv_a"] == (576, 1024)
    assert expert_operations(MEDIUM) == 2 * (4 + 2) * 3 * 1024 * 768


def test_copies_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.kernel_case.BEYOND_CACHES", 250)
    taken = turns(object, 100)
    first = [next(taken) for _ in range(3)]
    assert len(set(map(id, first))) == 3
    assert [next(taken) for _ in range(3)] == first
