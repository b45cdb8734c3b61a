from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inference.engine.admission import check_request
from inference.engine.types import GenerationRequest, RequestRejected, SamplingParams

LONG = (1,) * 100_000
GOOD = GenerationRequest("r", (1, 2, 3), SamplingParams(max_tokens=7))


def check(request: GenerationRequest) -> None:
    check_request(request, max_model_len=10, vocab_size=100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", float("nan")),
        ("presence_penalty", 2.1),
        ("frequency_penalty", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
        ("logit_bias", ((100, 0.0),)),
        ("logit_bias", ((1, 101.0),)),
        ("logit_bias", ((1, float("nan")),)),
        ("stop", ("",)),
    ],
)
def test_a_parameter_out_of_range_is_named(field: str, value: Any) -> None:
    params = dataclasses.replace(GOOD.params, **{field: value})
    with pytest.raises(RequestRejected, match=rf"^{field}: expected") as caught:
        check(dataclasses.replace(GOOD, params=params))
    assert caught.value.code == "invalid_params"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("prompt_token_ids", (), "empty_prompt"),
        ("prompt_token_ids", (100,), "invalid_token"),
        ("prompt_token_ids", (-1,), "invalid_token"),
        ("prompt_token_ids", (1, 2, 3, 4), "context_length_exceeded"),
        ("priority", 101, "invalid_params"),
        ("deadline_s", 0.0, "invalid_params"),
        ("deadline_s", float("nan"), "invalid_params"),
    ],
)
def test_a_request_that_can_not_be_served_says_why(field: str, value: Any, code: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        check(dataclasses.replace(GOOD, **{field: value}))
    assert caught.value.code == code


def test_limits_are_inside() -> None:
    check(GOOD)
    params = SamplingParams(
        max_tokens=7,
        temperature=0.0,
        min_p=1.0,
        presence_penalty=-2.0,
        logprobs=20,
        prompt_logprobs=0,
        logit_bias=((99, -100.0),),
    )
    check(dataclasses.replace(GOOD, params=params, priority=-100, deadline_s=0.1))


def test_an_embedding_needs_no_room_for_a_continuation() -> None:
    whole = dataclasses.replace(GOOD, prompt_token_ids=(1,) * 10, embed=True)
    check(whole)
    with pytest.raises(RequestRejected, match="make 11"):
        check(dataclasses.replace(whole, prompt_token_ids=(1,) * 11))


def test_more_log_probabilities_of_a_prompt_than_an_event_can_carry_are_refused() -> None:
    def asked(wanted: int) -> GenerationRequest:
        return GenerationRequest("r", LONG, SamplingParams(max_tokens=1, prompt_logprobs=wanted))

    check_request(asked(9), max_model_len=200_000, vocab_size=100)
    with pytest.raises(
        RequestRejected, match="expected at most 1000000 of prompt tokens; 100000 tokens"
    ) as found:
        check_request(asked(10), max_model_len=200_000, vocab_size=100)
    assert found.value.code == "invalid_params"
