"""What the gateway understands of a body, and the bounds it derives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ApiError
from gateway.bodies import ask_parse, body_with_limit, price_limit
from gateway.headers import duration_text


def chat(**changes: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **changes}).encode()


def completion(prompt: Any, **changes: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": prompt, **changes}).encode()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_prompt_bound_covers_every_byte(texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    ask = ask_parse("chat", chat(messages=messages))
    assert ask.prompt_tokens_max >= sum(len(text.encode()) for text in texts) + 16 * len(texts)
    parts = [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]
    parsed = ask_parse("chat", chat(messages=parts))
    assert parsed.prompt_tokens_max == sum(len(text.encode()) for text in texts) + 32


def test_prompt_bound_covers_tools_and_calls() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    ask = ask_parse("chat", chat(messages=messages, tools=[tool], tool_choice="required", n=3))
    assert ask.prompt_tokens_max >= len(json.dumps(tool, indent=4)) + len(json.dumps(messages))
    assert ask.prompt_tokens_max >= ask_parse("chat", chat(messages=messages)).prompt_tokens_max + 2048
    assert (ask.n, ask.prompts, ask.choices) == (3, 1, 3)


@pytest.mark.parametrize(
    ("prompt", "bound"), [("abc", 3), (["abc"], 3), ([1, 2], 2), ([[1, 2, 3]], 3), ("é", 2)]
)
def test_spellings_of_a_prompt(prompt: Any, bound: int) -> None:
    assert ask_parse("completions", completion(prompt)).prompt_tokens_max == bound + 16


def test_many_prompts_are_bounded_together() -> None:
    ask = ask_parse("completions", completion(["abc", "é"], n=2, echo=True, logprobs=1, max_tokens=0))
    assert (ask.prompt_tokens_max, ask.prompts, ask.choices, ask.max_tokens) == (5 + 32, 2, 4, 0)
    tokens = ask_parse("completions", completion([[1, 2], [3]]))
    assert (tokens.prompt_tokens_max, tokens.prompts) == (3 + 32, 2)
    embedding = ask_parse("embeddings", json.dumps({"model": "m", "input": ["abc", "de"]}).encode())
    assert (embedding.prompt_tokens_max, embedding.prompts, embedding.max_tokens) == (5 + 32, 2, 0)
    assert not embedding.stream


def test_suffix_counts() -> None:
    assert ask_parse("completions", completion("ab", suffix="cde")).prompt_tokens_max == 16 + 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (completion([]), 422),
        (completion(["a"] * 65, n=2), 422),
        (completion(["a", 1]), 400),
        (completion("a", best_of=2), 400),
        (completion("a", max_tokens=0), 422),
        (completion([1, "a"]), 400),
        (completion([1, 2], suffix="x"), 422),
        (completion("a", logprobs=6), 422),
        (completion([-1]), 422),
    ],
)
def test_prompts_that_are_refused(body: bytes, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        ask_parse("completions", body)
    assert caught.value.status == status


def test_limit_spellings() -> None:
    assert ask_parse("chat", chat(max_tokens=5)).max_tokens == 5
    assert ask_parse("chat", chat(max_completion_tokens=6)).max_tokens == 6
    assert ask_parse("chat", chat(max_tokens=None, max_completion_tokens=6)).max_tokens == 6
    assert ask_parse("chat", chat()).max_tokens is None


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(max_tokens=None),
        chat(max_completion_tokens=None),
        chat(max_tokens=None, max_completion_tokens=None),
        b"  \n" + chat(),
    ],
)
def test_limit_is_set_where_there_is_none(body: bytes) -> None:
    limited = json.loads(body_with_limit(ask_parse("chat", body), 77))
    assert limited["max_tokens"] == 77
    assert limited.get("max_completion_tokens") is None
    assert ask_parse("chat", json.dumps(limited).encode()).max_tokens == 77
    assert limited["messages"] == json.loads(body)["messages"]


def test_neutral_values_of_unserved_fields_pass() -> None:
    neutral: dict[str, Any] = {
        "service_tier": "auto", "tools": [], "verbosity": "medium", "functions": [], "store": None,
        "metadata": {"a": "b"}, "user": "u",
    }  # fmt: skip
    assert ask_parse("chat", chat(**neutral)).model == "m"


def test_deep_nesting_is_refused_not_fatal() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"metadata":' + b'{"a":' * 5000
    with pytest.raises(ApiError):
        ask_parse("chat", body)


@pytest.mark.parametrize(
    ("value", "nano"), [(0.12, 120_000_000), ("0.12", 120_000_000), (1, 10**9), (None, None), (0, 0)]
)
def test_price_limits_are_exact(value: Any, nano: int | None) -> None:
    assert price_limit(float(value) if isinstance(value, int) else value, "prompt") == nano


@pytest.mark.parametrize("value", ["-1", "cheap", "1e-20", "nan", "1e999999"])
def test_prices_that_are_none(value: str) -> None:
    with pytest.raises(ApiError):
        price_limit(value, "prompt")


@pytest.mark.parametrize(
    ("ms", "text"), [(0, b"0ms"), (12, b"12ms"), (1500, b"1.5s"), (60_000, b"1m0s"), (63_250, b"1m3.25s")]
)
def test_durations(ms: int, text: bytes) -> None:
    assert duration_text(ms) == text
