"""Strict tools under `tool_choice: auto`, over HTTP, with a real engine that draws its tokens.

The model knows nothing. Biases make it write letters, and begin a call now and then: with a token of its own
for the mark, or spelled in two. What it writes freely must be what it writes where there are no tools.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.tokenizer import Tokenizer

CHAT = "/v1/chat/completions"
CITIES = ["Oslo", "Rome", "Łódź"]
PLAN = {
    "type": "object",
    "properties": {
        "city": {"enum": CITIES},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "note": {"type": "string", "maxLength": 5},
    },
    "required": ["city", "days", "note"],
    "additionalProperties": False,
}
NOW = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}
    for name, schema in (("plan", PLAN), ("now", NOW))
]
# Control tokens and others that take the places of ids from 264 on; then the token or two that begin a call.
STYLES = {
    "deepseek": (
        ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
         "<｜tool▁call▁end｜>"], [], "<｜tool▁calls▁begin｜>"),
    "tagged": (["<tool_call>", "</tool_call>"], [], "<tool_call>"),
    "tagged, spelled": ([], ["<tool", "_call>"], "<tool_call>"),
}  # fmt: skip


@pytest.fixture(scope="module", params=STYLES)
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory, style: str) -> Path:
    """What the worker of these tests loads: its template has a place for tools and shows nothing of them."""
    path = tmp_path_factory.mktemp("strict")
    random_checkpoint_write(path=path, config={**TINY_V3, "vocab_size": 272})
    control, plain, mark = STYLES[style]
    told = json.loads((path / "tokenizer.json").read_text())
    names = {id_: name for name, id_ in told["model"]["vocab"].items()}
    for id_, name in enumerate([*control, *plain], 264):
        del told["model"]["vocab"][names[id_]]
        told["model"]["vocab"][name] = id_
        if name in control:
            told["added_tokens"].append(
                {**told["added_tokens"][0], "id": id_, "content": name, "special": False}
            )
    (path / "tokenizer.json").write_text(json.dumps(told))
    settings = json.loads((path / "tokenizer_config.json").read_text())
    shown = "<｜tool▁sep｜>" if style == "deepseek" else mark
    settings["chat_template"] += f"{{% if tools and false %}}{shown}{{% endif %}}"
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def body_of(tokenizer: Tokenizer, style: str, seed: int) -> dict[str, Any]:
    """Six choices of letters, now and then a beginning of a call, and an end after some hundred tokens."""
    _, plain, _ = STYLES[style]
    begins = [264, 265] if plain else [264]
    biases = {tokenizer.encode(letter)[0]: 30.0 for letter in string.ascii_lowercase}
    biases |= dict.fromkeys(begins, 32.0 if plain else 29.0) | dict.fromkeys(tokenizer.eos_ids, 28.0)
    # White space would be allowed before each part of the arguments, a lot of it.
    biases |= {id_: -100.0 for id_, data in enumerate(tokenizer.token_bytes) if data and not data.strip()}
    return {
        "model": "tokenworks-test", "messages": [{"role": "user", "content": f"go {seed}"}], "n": 6,
        "temperature": 1.0, "max_tokens": 120, "seed": seed,
        "logit_bias": {str(id_): bias for id_, bias in biases.items()},
    }  # fmt: skip


def ends(call: dict[str, str]) -> bool:
    """Whether the arguments of a text's last call are complete."""
    try:
        json.loads(call["arguments"])
    except ValueError:
        return False
    return True


def follows(name: str, arguments: str) -> bool:
    found = json.loads(arguments)
    if name == "now":
        return bool(found == {})
    return (
        name == "plan"
        and found.keys() == {"city", "days", "note"}
        and found["city"] in CITIES
        and type(found["days"]) is int
        and 1 <= found["days"] <= 9
        and isinstance(found["note"], str)
        and len(found["note"]) <= 5
    )


async def test_calls_follow_their_schema_and_free_text_is_as_without_tools(
    real_worker: Any, style: str
) -> None:
    real_worker.client.timeout = 60
    counts = Counter[str]()
    for seed in range(5):
        body = body_of(real_worker.engine.tokenizer, style, seed)
        free = await answered(real_worker, body, f"req_{seed}")
        for number, several in enumerate((True, False)):
            tools = body | {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": several}
            held = await answered(real_worker, tools, f"req_{seed}{number}")
            for without, choice in zip(free, held, strict=True):
                check(without, choice, STYLES[style][2], counts)
                assert several or len(choice["message"].get("tool_calls", [])) <= 1
    assert counts["calls"] > 15
    assert min(counts[name] for name in ("plan", "now", "no call", "text after a call")) > 0, counts


async def answered(worker: Any, body: dict[str, Any], request_id: str) -> list[dict[str, Any]]:
    response = await worker.post(CHAT, body, request_id)
    assert response.status_code == 200, response.text
    choices: list[dict[str, Any]] = response.json()["choices"]
    return choices


def check(without: dict[str, Any], choice: dict[str, Any], mark: str, counts: Counter[str]) -> None:
    """One choice, beside what is written without tools from the same random numbers."""
    written, content = without["message"]["content"], choice["message"]["content"] or ""
    calls = [call["function"] for call in choice["message"].get("tool_calls", [])]
    before, begun, _ = written.partition(mark)
    if not begun:
        assert not calls
        assert (content, choice["finish_reason"]) == (written, without["finish_reason"])
        counts["no call"] += 1
        return
    assert content.startswith(before)
    counts["text after a call"] += len(content) > len(before)
    cut_short = choice["finish_reason"] == "length"
    assert calls or cut_short
    whole = calls if not cut_short else calls[:-1] + [one for one in calls[-1:] if ends(one)]
    for call in whole:
        assert follows(call["name"], call["arguments"]), call
        counts["calls"] += 1
        counts[call["name"]] += 1
