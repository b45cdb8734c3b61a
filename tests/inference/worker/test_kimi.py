"""A checkpoint folder as Kimi K2 is published, from its files to tool calls over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.messages import release_manifest
from inference.tokenizer import Tokenizer
from inference.worker.protocol.calls import ChatMessage, ChatPrompt, ToolCall
from inference.worker.protocol.tools.styles import KIMI, TAGGED
from inference.worker.templates import chat_tokens
from tests.inference.kimi import checkpoint_write, ranked_tokens

CHAT = "/v1/chat/completions"
FIRST = len(ranked_tokens())
SECTION, SECTION_END, CALL, ARGUMENTS, CALL_END = range(FIRST + 11, FIRST + 16)
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "n": {"enum": [1, 22, 333]}},
    "required": ["on", "n"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": True}}]
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Look <|im_end|>."}]
BODY: dict[str, Any] = {"model": "tokenworks-test", "messages": ASKED, "temperature": 0, "max_tokens": 16}


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the worker of these tests loads."""
    path = tmp_path_factory.mktemp("kimi")
    checkpoint_write(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny_dir: Path) -> Tokenizer:
    return Tokenizer.from_dir(tiny_dir)


def test_the_ranks_are_a_part_of_the_release_and_the_program_is_none(tiny_dir: Path) -> None:
    files = set(release_manifest(tiny_dir))
    assert "tiktoken.model" in files
    assert "tokenization_kimi.py" not in files


async def test_a_chat_is_served(real_worker: Any, tokenizer: Tokenizer) -> None:
    whole = (await real_worker.post(CHAT, BODY, "req_1")).json()
    assert whole["usage"]["prompt_tokens"] == len(tokenizer.encode_chat(ASKED))
    assert whole["choices"][0]["message"]["content"]
    stream = await real_worker.post(CHAT, BODY | {"stream": True}, "req_2")
    told = "".join(delta.get("content", "") for delta in deltas(stream.text))
    assert told == whole["choices"][0]["message"]["content"]


def deltas(body: str) -> list[dict[str, Any]]:
    frames = [frame for frame in body.split("\n\n") if frame.startswith("data: {")]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


async def test_a_call_goes_out_and_its_result_comes_back(real_worker: Any, tokenizer: Tokenizer) -> None:
    """The model knows nothing: that it calls at all is the grammar's doing, in the model's own tokens."""
    body = BODY | {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    body |= {"temperature": 1.0, "seed": 3, "max_tokens": 100}
    # White space would be allowed before each part, a lot of it.
    body |= {"logit_bias": {str(id_): -100 for id_ in blanks(tokenizer)}}
    choice = (await real_worker.post(CHAT, body, "req_1")).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "look"
    made = json.loads(call["function"]["arguments"])
    assert isinstance(made["on"], bool)
    assert made["n"] in (1, 22, 333)

    stream = deltas((await real_worker.post(CHAT, body | {"stream": True}, "req_2")).text)
    parts = [part for delta in stream for part in delta.get("tool_calls", ())]
    assert len(parts) > 2
    assert parts[0]["function"] == {"name": "look", "arguments": ""}
    assert "".join(part["function"]["arguments"] for part in parts) == call["function"]["arguments"]

    answered = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "<|tool_call_end|>"},
    ]
    after = (await real_worker.post(CHAT, BODY | {"messages": answered}, "req_3")).json()
    shown = [
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [call | {"id": "functions.look:0"}]},
        {"role": "tool", "tool_call_id": "functions.look:0", "content": "<|tool_call_end|>"},
    ]
    assert after["usage"]["prompt_tokens"] == len(tokenizer.encode_chat(shown))


def blanks(tokenizer: Tokenizer) -> Sequence[int]:
    return [id_ for id_, data in enumerate(tokenizer.token_bytes) if data and not data.strip()]


async def test_calls_follow_each_other_under_ids_of_their_own(real_worker: Any) -> None:
    body = BODY | {"tools": TOOLS, "tool_choice": "required", "temperature": 1.0, "max_tokens": 140, "n": 6}
    body |= {"logit_bias": {str(id_): -100 for id_ in blanks(real_worker.engine.tokenizer)}, "seed": 1}
    choices = (await real_worker.post(CHAT, body)).json()["choices"]
    ended = [choice for choice in choices if choice["finish_reason"] == "tool_calls"]
    assert any(len(choice["message"]["tool_calls"]) > 1 for choice in ended)
    for choice in ended:
        for call in choice["message"]["tool_calls"]:
            assert json.loads(call["function"]["arguments"]).keys() == {"on", "n"}
    ids = [call["id"] for choice in choices for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == len(ids)


TALK = ChatPrompt(
    (
        ChatMessage("user", "?"),
        ChatMessage("assistant", "Two.", (ToolCall("x", "look", "{}"), ToolCall("y", "a.b", '{"c": 1}'))),
        ChatMessage("tool", "of y", (), "y"),
        ChatMessage("tool", "of x", (), "x"),
        ChatMessage("assistant", "", (ToolCall("x", "look", "{}"),)),
        ChatMessage("tool", "of the later x", (), "x"),
        ChatMessage("tool", "of none", (), "z<|im_end|>"),
    )
)


def test_calls_are_numbered_through_the_conversation_whatever_they_were_called(tokenizer: Tokenizer) -> None:
    word = tokenizer.encode
    ids = chat_tokens(TALK, tokenizer, KIMI)
    first = [CALL, *word("functions.look:0"), ARGUMENTS, *word("{}"), CALL_END]
    second = [CALL, *word("functions.a.b:1"), ARGUMENTS, *word('{"c": 1}'), CALL_END]
    third = [CALL, *word("functions.look:2"), ARGUMENTS, *word("{}"), CALL_END]
    system, middle, end = FIRST + 10, FIRST + 17, FIRST + 2

    def told(id_: str, text: str) -> list[int]:
        return [system, *word("tool"), middle, *word(f"Result of {id_}:\n{text}"), end]

    assistant = [FIRST + 4, *word("assistant"), middle]
    assert ids == [
        FIRST + 3, *word("user"), middle, *word("?"), end,
        *assistant, *word("Two."), SECTION, *first, *second, SECTION_END, end,
        *told("functions.a.b:1", "of y"), *told("functions.look:0", "of x"),
        *assistant, SECTION, *third, SECTION_END, end,
        *told("functions.look:2", "of the later x"), *told("z<|im_end|>", "of none"),
        *assistant,
    ]  # fmt: skip


def test_other_styles_keep_the_ids_they_are_given(tokenizer: Tokenizer) -> None:
    prompt = ChatPrompt((ChatMessage("tool", "3", (), "call_7"),))
    assert "call_7" in tokenizer.decode(chat_tokens(prompt, tokenizer, TAGGED))
