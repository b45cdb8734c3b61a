"""Every refusal of a request body names the parameter; what is harmless or neutral passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.worker.protocol.calls import ChatMessage, ChatPrompt, TextPrompt, TokenPrompt
from inference.worker.protocol.parse import call_parse
from inference.worker.refusal import RefusalError


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


USER = [user("hi")]
CHAT: dict[str, Any] = {"model": "m", "messages": USER}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "x"}


def chat(**changes: Any) -> Any:
    return call_parse("chat", json.dumps(CHAT | changes).encode())


def completion(**changes: Any) -> Any:
    return call_parse("completions", json.dumps(COMPLETION | changes).encode())


def test_a_bare_chat_request_has_the_defaults() -> None:
    call = chat()
    assert call.prompt == ChatPrompt((ChatMessage("user", "hi"),))
    assert (call.max_tokens, call.temperature, call.top_p, call.seed, call.stop) == (None, 1.0, 1.0, None, ())
    assert not call.stream
    assert not call.include_usage


def test_completions_default_to_sixteen_tokens() -> None:
    assert completion().max_tokens == 16
    assert completion(max_tokens=3).max_tokens == 3


def test_all_served_parameters_are_taken_over() -> None:
    call = chat(
        max_completion_tokens=5, temperature=0, top_p=0.5, seed=-3, stop=["a", "b"], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    assert (call.max_tokens, call.temperature, call.top_p, call.seed) == (5, 0, 0.5, -3)
    assert call.stop == ("a", "b")
    assert call.stream
    assert call.include_usage


def test_one_stop_string_is_a_list_of_one() -> None:
    assert chat(stop="###").stop == ("###",)


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = chat(messages=[{"role": "developer", "content": parts}, *USER])
    assert call.prompt.messages == (ChatMessage("system", "ab"), ChatMessage("user", "hi"))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("x", TextPrompt("x")),
        (["x"], TextPrompt("x")),
        ([1, 2], TokenPrompt((1, 2))),
        ([[1, 2]], TokenPrompt((1, 2))),
        ([], TokenPrompt(())),
        ("", TextPrompt("")),
    ],
)
def test_prompt_spellings(prompt: object, expected: object) -> None:
    assert completion(prompt=prompt).prompt == expected


def test_suffix_asks_for_the_middle() -> None:
    assert completion(suffix="end").prompt == TextPrompt("x", "end")


@pytest.mark.parametrize(
    "field",
    [
        {"n": 1}, {"presence_penalty": 0}, {"frequency_penalty": 0.0}, {"logit_bias": {}}, {"tools": []},
        {"logprobs": False}, {"tool_choice": "auto"}, {"response_format": {"type": "text"}}, {"user": "u"},
        {"metadata": {"a": "b"}}, {"service_tier": "auto"}, {"store": False},
        {"thinking": {"type": "disabled"}}, {"provider": {"order": ["x"]}}, {"tools": None, "other": None},
    ],
)  # fmt: skip
def test_fields_that_ask_for_nothing_pass(field: dict[str, Any]) -> None:
    assert chat(**field) == chat()


@pytest.mark.parametrize(
    ("field", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "unsupported_parameter"),
        ({"presence_penalty": 0.1}, "presence_penalty", "unsupported_parameter"),
        ({"frequency_penalty": -1}, "frequency_penalty", "unsupported_parameter"),
        ({"thinking": {"type": "enabled"}}, "thinking", "unsupported_parameter"),
        ({"audio": {}}, "audio", "unsupported_parameter"),
        ({"top_k": 5}, "top_k", "unknown_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", "invalid_value"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": USER * 2049}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_parameter"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_value"),
        ({"messages": [user([{"type": "image_url"}])]}, "messages[0].content[0].type",
         "unsupported_parameter"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text", "invalid_type"),
        ({"messages": [user("x") | {"name": "n"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [user("x") | {"prefix": True}]}, "messages[0].prefix", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "x", "foo": 1}]}, "messages[0].foo", "unknown_parameter"),
        ({"prompt": "x"}, "prompt", "unknown_parameter"),
    ],
)  # fmt: skip
def test_chat_refusals_name_the_parameter(field: dict[str, Any], param: str, code: str | None) -> None:
    with pytest.raises(RefusalError) as refused:
        chat(**field)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)
    assert refused.value.type == "invalid_request_error"
    assert param.split("[", maxsplit=1)[0] in refused.value.message


@pytest.mark.parametrize(
    ("field", "param", "code"),
    [
        ({"prompt": ["a", "b"]}, "prompt", "unsupported_parameter"),
        ({"prompt": [[1], [2]]}, "prompt", "unsupported_parameter"),
        ({"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, True]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1], "suffix": "x"}, "suffix", "invalid_value"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"echo": True}, "echo", "unsupported_parameter"),
        ({"logprobs": 0}, "logprobs", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"messages": USER}, "messages", "unknown_parameter"),
        ({"max_completion_tokens": 4}, "max_completion_tokens", "unknown_parameter"),
    ],
)
def test_completion_refusals_name_the_parameter(field: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RefusalError) as refused:
        completion(**field)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"model":"\\ud800"}', b"[" * 100_000, b'{"model":NaN}'],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusalError) as refused:
        call_parse("chat", body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "suffix",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tools",
        "n",
        "user",
    ]
)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(body=st.dictionaries(NAMES, JSON), endpoint=st.sampled_from(["chat", "completions"]))
def test_any_json_is_a_call_or_a_clean_refusal(body: dict[str, Any], endpoint: Any) -> None:
    status = 200
    try:
        call_parse(endpoint, json.dumps(body).encode())
    except RefusalError as refused:
        status = refused.status
    assert status in (200, 400)
