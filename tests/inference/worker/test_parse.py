"""Every refusal of a request body names the parameter; what is harmless or neutral passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.types import Grammar
from inference.worker.protocol.calls import (
    ChatMessage,
    ChatPrompt,
    Sampling,
    TextPrompt,
    TokenPrompt,
    Tool,
    ToolCall,
    ToolUse,
)
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
    assert call.prompts == (ChatPrompt((ChatMessage("user", "hi"),)),)
    assert (call.n, call.max_tokens, call.logprobs, call.sampling) == (1, None, None, Sampling())
    assert not call.stream
    assert not call.include_usage


def test_completions_default_to_sixteen_tokens() -> None:
    assert completion().max_tokens == 16
    assert completion(max_tokens=3).max_tokens == 3


def test_all_served_parameters_are_taken_over() -> None:
    call = chat(
        max_completion_tokens=5, temperature=0, top_p=0.5, seed=-3, stop=["a", "b"], stream=True, n=3,
        top_k=4, stream_options={"include_usage": True},
        min_p=0.1, presence_penalty=-2, frequency_penalty=0.5,
        repetition_penalty=1.2, logit_bias={"17": -100, "2": 0.5}, ignore_eos=True, logprobs=True,
        top_logprobs=20,
    )  # fmt: skip
    assert (call.max_tokens, call.n, call.logprobs, call.choices) == (5, 3, 20, 3)
    assert call.sampling == Sampling(
        temperature=0,
        top_p=0.5,
        top_k=4,
        min_p=0.1,
        seed=-3,
        stop=("a", "b"),
        presence_penalty=-2,
        frequency_penalty=0.5,
        repetition_penalty=1.2,
        logit_bias=((17, -100.0), (2, 0.5)),
        ignore_eos=True,
    )
    assert call.stream
    assert call.include_usage


def test_one_stop_string_is_a_list_of_one() -> None:
    assert chat(stop="###").sampling.stop == ("###",)


def test_chat_logprobs_without_the_best_name_the_chosen_alone() -> None:
    assert chat(logprobs=True).logprobs == 0
    assert completion(logprobs=0).logprobs == 0
    assert completion(logprobs=False).logprobs is None


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = chat(messages=[{"role": "developer", "content": parts}, *USER])
    assert call.prompts[0].messages == (ChatMessage("system", "ab"), ChatMessage("user", "hi"))


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
    assert completion(prompt=prompt).prompts == (expected,)


def test_a_request_may_carry_many_prompts() -> None:
    assert completion(prompt=["a", "b"]).prompts == (TextPrompt("a"), TextPrompt("b"))
    call = completion(prompt=[[1, 2], [3]], n=2, echo=True, logprobs=1, max_tokens=0)
    assert call.prompts == (TokenPrompt((1, 2)), TokenPrompt((3,)))
    assert (call.choices, call.echo, call.logprobs, call.max_tokens) == (4, True, 1, 0)
    embedding = call_parse("embeddings", json.dumps({"model": "m", "input": ["a", "b"]}).encode())
    assert embedding.prompts == (TextPrompt("a"), TextPrompt("b"))


TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "now", "description": "The time"}}
STRICT: dict[str, Any] = {"type": "function", "function": {"name": "now", "strict": True}}
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = (Tool("add", {"type": "object"}, TOOL), Tool("now", NO_PARAMETERS, OTHER))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolUse(TOOLS)),
        ("auto", ToolUse(TOOLS)),
        ("none", None),
        ("required", ToolUse(TOOLS, forced=TOOLS)),
        ({"type": "function", "function": {"name": "now"}}, ToolUse(TOOLS, (TOOLS[1],), several=False)),
    ],
)
def test_tools_and_their_choice(choice: object, expected: ToolUse | None) -> None:
    assert chat(tools=[TOOL, OTHER], tool_choice=choice).prompts[0].tool_use == expected


def test_a_strict_tool_is_known_as_such() -> None:
    assert [tool.strict for tool in chat(tools=[TOOL, STRICT]).prompts[0].tool_use.tools] == [False, True]


def test_a_conversation_may_hold_calls_and_their_results() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    messages = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3", "name": "add"},
    ]
    assert chat(messages=messages).prompts[0].messages[1:] == (
        ChatMessage("assistant", "", (ToolCall("call_1", "add", "{}"),)),
        ChatMessage("tool", "3", (), "call_1"),
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Grammar("json_schema", '{"type":"object"}')),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "null"}}},
         Grammar("json_schema", '{"type":"null"}')),
        ({"type": "regex", "pattern": "a+"}, Grammar("regex", "a+")),
        ({"type": "lark", "grammar": "start: /a/"}, Grammar("lark", "start: /a/")),
    ],
)  # fmt: skip
def test_response_formats(wanted: dict[str, Any], expected: Grammar | None) -> None:
    assert chat(response_format=wanted).sampling.grammar == expected


def test_suffix_asks_for_the_middle() -> None:
    assert completion(suffix="end").prompts == (TextPrompt("x", "end"),)


@pytest.mark.parametrize(
    "field",
    [
        {"n": 1}, {"presence_penalty": 0}, {"frequency_penalty": 0.0}, {"logit_bias": {}}, {"tools": []},
        {"top_k": -1}, {"parallel_tool_calls": False},
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
        ({"n": 129}, "n", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "web"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [TOOL, TOOL]}, "tools", "invalid_value"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "response_format", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "required", "ignore_eos": True}, "ignore_eos", "invalid_value"),
        ({"tools": [STRICT], "ignore_eos": True}, "ignore_eos", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice",
         "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "regex"}}, "response_format.pattern", "missing_required_parameter"),
        ({"response_format": {"type": "text", "pattern": "a"}}, "response_format.pattern", "invalid_value"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}},
         "response_format.json_schema.schema", "missing_required_parameter"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": 100, "05": 100}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"0": 1, "7": 1, "00": -1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]", "invalid_value"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"min_p": 1.1}, "min_p", "invalid_value"),
        ({"thinking": {"type": "enabled"}}, "thinking", "unsupported_parameter"),
        ({"audio": {}}, "audio", "unsupported_parameter"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"temperature": True}, "temperature", "invalid_value"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": USER * 2049}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "invalid_value"),
        ({"messages": [user("x") | {"tool_call_id": "c"}]}, "messages[0].tool_call_id", "invalid_value"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]},
         "messages[0].tool_calls[0].function", "missing_required_parameter"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "unsupported_parameter"),
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
        ({"prompt": ["a"] * 65, "n": 2}, "n", "invalid_value"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], [-2]]}, "prompt[1][0]", "invalid_value"),
        ({"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, True]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1], "suffix": "x"}, "suffix", "invalid_value"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"echo": True, "suffix": "x"}, "echo", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_value"),
        ({"tools": [{}]}, "tools", "unsupported_parameter"),
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
    ("field", "param", "code"),
    [
        ({"dimensions": 64}, "dimensions", "unsupported_parameter"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": ["a"] * 129}, "input", "invalid_value"),
        ({"stream": True}, "stream", "unknown_parameter"),
    ],
)
def test_embedding_refusals_name_the_parameter(field: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RefusalError) as refused:
        call_parse("embeddings", json.dumps({"model": "m", "input": "x"} | field).encode())
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
        "tool_choice",
        "response_format",
        "input",
        "n",
        "user",
    ]
)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(body=st.dictionaries(NAMES, JSON), endpoint=st.sampled_from(["chat", "completions", "embeddings"]))
def test_any_json_is_a_call_or_a_clean_refusal(body: dict[str, Any], endpoint: Any) -> None:
    status = 200
    try:
        call_parse(endpoint, json.dumps(body).encode())
    except RefusalError as refused:
        status = refused.status
    assert status in (200, 400)
