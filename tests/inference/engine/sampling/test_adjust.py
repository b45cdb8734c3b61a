"""Penalties, biases and masks against their definitions."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.sampling.adjust import changes_of
from inference.engine.step import Draw
from moe_ops.sample import reference

VOCABULARY = 40


def adjusted(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    return reference.changed(logits, changes_of(draws))


def by_definition(
    logits: list[float],
    text: list[int],
    prompt: int,
    *,
    repetition_penalty: float,
    presence_penalty: float,
    frequency_penalty: float,
) -> list[float]:
    made = Counter(text[prompt:])
    found = []
    for token, logit in enumerate(logits):
        seen = logit
        if token in text:
            seen = logit / repetition_penalty if logit > 0 else logit * repetition_penalty
        found.append(seen - presence_penalty * (made[token] > 0) - frequency_penalty * made[token])
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, VOCABULARY - 1), max_size=60),
    st.floats(0, 1),
    st.tuples(
        st.sampled_from([1.0, 0.5, 1.7]),
        st.sampled_from([0.0, -2.0, 1.5]),
        st.sampled_from([0.0, -1.0, 0.25]),
    ),
)
def test_penalties_follow_their_definitions(
    draw_of: Any, text: list[int], share: float, strengths: tuple[float, float, float]
) -> None:
    prompt = int(share * len(text))
    names = ("repetition_penalty", "presence_penalty", "frequency_penalty")
    penalties = dict(zip(names, strengths, strict=True))
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(len(text)))
    wanted = [draw_of(), draw_of(text=text, prompt=prompt, **penalties), draw_of(text=text)]
    found = adjusted(logits, wanted)
    expected = by_definition(logits[1].tolist(), text, prompt, **penalties)
    assert found[1].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert torch.equal(found[[0, 2]], logits[[0, 2]])


def test_biases_are_added_to_their_tokens(draw_of: Any) -> None:
    logits = torch.zeros(2, VOCABULARY)
    found = adjusted(logits, [draw_of(logit_bias=((3, 2.5), (39, -100.0))), draw_of(logit_bias=((3, -1.0),))])
    assert [found[0, 3].item(), found[0, 39].item(), found[1, 3].item()] == [2.5, -100.0, -1.0]
    assert found.count_nonzero() == 3


@pytest.mark.parametrize("mask_bytes", [4, 8])
def test_masked_tokens_and_those_beyond_the_mask_are_impossible(draw_of: Any, mask_bytes: int) -> None:
    mask = np.zeros(mask_bytes, dtype=np.uint8)
    mask[0] = 0b1000_0010
    mask[3] = 0b0000_0001
    logits = torch.zeros(2, VOCABULARY)
    found = adjusted(logits, [draw_of(grammar=SimpleNamespace(mask=mask)), draw_of()])
    assert found[0].isfinite().nonzero().squeeze(1).tolist() == [1, 7, 24]
    assert torch.equal(found[1], logits[1])


def test_rows_that_ask_for_nothing_are_not_copied(draw_of: Any) -> None:
    logits = torch.zeros(2, VOCABULARY)
    assert adjusted(logits, [draw_of(text=[1, 2]), draw_of(top_k=3)]) is logits
