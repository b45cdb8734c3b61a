"""Counts that are kept from step to step are those of the whole text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.sampling.touched import Touched
from inference.engine.sequence import Sequence
from inference.engine.types import GenerationRequest, SamplingParams

TEXTS = st.lists(st.integers(0, 12), min_size=1, max_size=40)


def params(**given_: Any) -> SamplingParams:
    return SamplingParams(max_tokens=9, **given_)


def table(touched: Touched) -> dict[int, tuple[float, float]]:
    columns = zip(touched.tokens, touched.counts, touched.biases, strict=True)
    return {token: (count, bias) for token, count, bias in columns}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    text=TEXTS,
    share=st.floats(0, 1),
    repetition=st.sampled_from([1.0, 1.3]),
    biases=st.sampled_from([(), ((3, 2.0), (90, -1.0), (3, 0.5))]),
    back=st.integers(0, 5),
)
def test_reading_step_by_step_counts_what_is_in_the_text(
    text: list[int], share: float, repetition: float, biases: tuple[tuple[int, float], ...], back: int
) -> None:
    prompt = int(share * len(text))
    wanted = params(repetition_penalty=repetition, presence_penalty=0.5, logit_bias=biases)
    touched = Touched(wanted)
    for end in range(prompt, len(text) + 1):
        touched.read(text[:end], prompt)
        touched.read(text[: max(prompt, end - back)], prompt)  # a text that lost tokens and got them again
        touched.read(text[:end], prompt)
        made = Counter(text[prompt:end])
        expected = {token: (float(count), 0.0) for token, count in made.items()}
        if repetition != 1:
            expected |= {token: (float(made[token]), 0.0) for token in text[:prompt]}
        for token, bias in biases:
            count, before = expected.get(token, (-1.0, 0.0))
            expected[token] = (count, before + bias)
        assert table(touched) == expected


def test_each_token_is_listed_once_and_looked_at_once() -> None:
    class Watched(list[int]):
        looks = 0

        def __getitem__(self, place: Any) -> Any:
            self.looks += 1
            return super().__getitem__(place)

    text = Watched([1, 2, 1])
    touched = Touched(params(presence_penalty=1.0))
    for token in (7, 8, 7):
        text.append(token)
        before = text.looks
        touched.read(text, 3)
        assert text.looks - before == 1
    assert touched.tokens.tolist() == [7, 8]
    assert touched.counts.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("given_", "touches", "drafts"),
    [
        ({}, False, True),
        ({"top_k": 4}, False, True),
        ({"logit_bias": ((1, 1.0),)}, True, True),
        ({"presence_penalty": -1.0}, True, False),
        ({"frequency_penalty": 0.5}, True, False),
        ({"repetition_penalty": 1.5}, True, False),
    ],
)
def test_a_request_keeps_count_only_where_it_has_to(
    given_: dict[str, Any], *, touches: bool, drafts: bool
) -> None:
    sequence = Sequence(GenerationRequest("a", (1, 2), params(**given_)), 0, 0)
    assert (sequence.touched is not None) == touches
    assert sequence.drafts_allowed == drafts
