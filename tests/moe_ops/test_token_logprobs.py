"""Log probabilities of tokens against the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moe_ops.sample import cpu, reference, token_logprobs


@pytest.mark.parametrize("scorer", [token_logprobs, cpu.token_logprobs])
def test_log_probabilities_are_the_definitions(isa: str, scorer: Any) -> None:
    logits = torch.randn(9, 1003, generator=torch.Generator().manual_seed(2)) * 5
    logits[4, 100:] = float("-inf")
    tokens = torch.arange(9) * 7
    found, expected = scorer(logits, tokens, 20), reference.token_logprobs(logits, tokens, 20)
    assert found[0].tolist() == pytest.approx(expected[0].tolist(), abs=2e-6), isa
    assert found[1].equal(expected[1])
    assert found[2].flatten().tolist() == pytest.approx(expected[2].flatten().tolist(), abs=2e-6)
    alone = scorer(logits[3:4], tokens[3:4], 20)
    assert all(one[0].equal(all_[3]) for one, all_ in zip(alone, found, strict=True))
    assert scorer(logits, tokens, 0)[1].shape == (9, 0)


def test_the_best_of_equals_is_the_lowest_token(isa: str) -> None:
    logits = torch.zeros(1, 200)
    logits[0, [150, 20]] = 1.0
    assert token_logprobs(logits, torch.tensor([0]), 4)[1].tolist() == [[20, 150, 0, 1]], isa
