"""Log probabilities are the model's own, whatever is done to the logits afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.engine.sampling import choose_tokens, prompt_logprobs

pytestmark = pytest.mark.usefixtures("form")


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 50, generator=torch.Generator().manual_seed(1)) * 3


def test_the_chosen_token_and_the_best_have_the_models_probabilities(
    logits: torch.Tensor, draw_of: Any
) -> None:
    wanted = [
        draw_of(temperature=0.0, logprobs=3),
        draw_of(temperature=0.3, top_k=4, logit_bias=((9, 50.0),), logprobs=0),
        draw_of(),
    ]
    best, biased, silent = choose_tokens(logits, wanted)
    expected = logits.log_softmax(-1)
    assert best is not None
    assert biased is not None
    assert silent is not None
    assert best.logprob == pytest.approx(expected[0].max().item(), abs=1e-6)
    values, tokens = expected[0].sort(descending=True)
    assert [token for token, _ in best.top] == tokens[:3].tolist()
    assert [value for _, value in best.top] == pytest.approx(values[:3].tolist(), abs=1e-6)
    assert best.logprob == best.top[0][1]
    assert (biased.token, biased.top) == (9, ())
    assert biased.logprob == pytest.approx(expected[1, 9].item(), abs=1e-5)
    assert (silent.logprob, silent.top) == (None, ())


def test_a_prompts_tokens_are_scored_place_by_place(draw_of: Any) -> None:
    logits = torch.randn(70, 30, generator=torch.Generator().manual_seed(4))
    following = [place % 30 for place in range(70)]
    found = prompt_logprobs(logits, following, 2)
    expected = logits.log_softmax(-1)
    assert [one.token_id for one in found] == following
    chosen = expected[torch.arange(70), following].tolist()
    assert [one.logprob for one in found] == pytest.approx(chosen, abs=1e-6)
    assert [one.top[0][0] for one in found] == expected.argmax(-1).tolist()
    assert all(len(one.top) == 2 for one in found)
    greedy = choose_tokens(logits[5:6], [draw_of(temperature=0.0, logprobs=2)])[0]
    assert greedy is not None
    assert greedy.top == found[5].top
