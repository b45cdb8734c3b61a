"""Bodies of responses that are not streamed."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from typing import Any

import orjson

from inference.worker.protocol.answers import Answer
from inference.worker.protocol.calls import ToolCall
from inference.worker.protocol.heading import WHOLE_OBJECT, Heading
from inference.worker.protocol.usage import Usage


def generation_body(heading: Heading, answers: Sequence[Answer], usage: Usage) -> bytes:
    """All choices of a chat or completion, in order."""
    choice = _chat_choice if heading.endpoint == "chat" else _text_choice
    fields = heading.fields(WHOLE_OBJECT[heading.endpoint])
    choices = [choice(answer, heading.request_id) for answer in answers]
    return orjson.dumps(fields | {"choices": choices, "usage": usage.to_wire()})


def embedding_body(heading: Heading, answers: Sequence[Answer], usage: Usage, *, as_base64: bool) -> bytes:
    """One vector of length 1 for each text; base64 is over little-endian float32."""
    data = [
        {"object": "embedding", "index": answer.index, "embedding": _vector(answer, as_base64=as_base64)}
        for answer in answers
    ]
    counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    return orjson.dumps({"object": "list", "data": data, "model": heading.model, "usage": counts})


def _vector(answer: Answer, *, as_base64: bool) -> list[float] | str:
    """Scaled to length 1, as clients that compare by dot product expect."""
    raw = answer.embedding or ()
    length = math.sqrt(math.fsum(value * value for value in raw)) or 1.0
    vector = array("f", (value / length for value in raw))
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()


def _chat_choice(answer: Answer, request_id: str) -> dict[str, Any]:
    calls = answer.tool_calls(request_id)
    content = answer.content()
    message: dict[str, Any] = {
        "role": "assistant", "content": None if calls and not content else content, "refusal": None,
    }  # fmt: skip
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {
        "index": answer.index,
        "message": message,
        "logprobs": answer.logprobs(),
        "finish_reason": answer.reason,
    }


def _text_choice(answer: Answer, request_id: str) -> dict[str, Any]:
    del request_id  # completions have nothing with an id
    return {
        "index": answer.index,
        "text": answer.content(),
        "logprobs": answer.logprobs(),
        "finish_reason": answer.reason,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}
