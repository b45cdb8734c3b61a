"""What was shown, held against what was signed: several choices, calls of tools, embeddings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from gateway.evidence import whole_problems
from inference.messages import GENESIS_HASH, JournalEntry

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}


def entry_for(text: str, prompt: int = 7, completion: int = 3) -> JournalEntry:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return JournalEntry(
        0, GENESIS_HASH, "wrk_1", "req_1", "m", "ab", prompt, 0, completion, "stop", 1, 2, 3, digest
    )


def chat_body(*messages: dict[str, Any]) -> bytes:
    choices = [{"index": index, "message": message} for index, message in enumerate(messages)]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({"choices": choices, "usage": usage}).encode()


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        ([{"content": "hi"}, {"content": "ho"}], "hiho"),
        ([{"content": None, "tool_calls": [CALL]}], 'add{"a":1}'),
        ([{"content": "Look: ", "tool_calls": [CALL, CALL]}, {"content": "x"}],
         'Look: add{"a":1}add{"a":1}x'),
    ],
)  # fmt: skip
def test_all_that_is_shown_is_hashed(messages: list[dict[str, Any]], shown: str) -> None:
    problems, digest = whole_problems(chat_body(*messages), entry_for(shown))
    assert problems == []
    assert digest == hashlib.sha256(shown.encode()).hexdigest()
    assert whole_problems(chat_body(*messages), entry_for(f"{shown} "))[0] == ["output_mismatch"]


def test_embeddings_have_a_prompt_and_no_text() -> None:
    body = json.dumps({"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}}).encode()
    assert whole_problems(body, entry_for("", completion=0)) == ([], None)
    assert whole_problems(body, entry_for("", prompt=8, completion=0)) == (["usage_mismatch"], None)
