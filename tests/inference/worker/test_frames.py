"""The bytes of streams and bodies, exactly."""

from __future__ import annotations

import base64
import json

from inference.messages import GENESIS_HASH, JournalEntry, SignedEntry
from inference.worker.protocol.frames import (
    DONE,
    KEEP_ALIVE,
    Frames,
    Heading,
    error_frame,
    receipt_frame,
    receipt_header,
    whole_body,
)
from inference.worker.protocol.usage import Usage
from inference.worker.refusal import fault

USAGE = Usage(prompt_tokens=7, cached_tokens=2, completion_tokens=3)
USAGE_WIRE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 0},
    "prompt_cache_hit_tokens": 2,
    "prompt_cache_miss_tokens": 5,
}
SIGNED = SignedEntry(
    JournalEntry(0, GENESIS_HASH, "wrk_1", "req_1", "m", "ab", 7, 2, 3, "stop", 1, 2, 3, "cd"), "c2ln"
)
CHAT = Heading(endpoint="chat", request_id="req_1a", created=5, model="m", fingerprint="fp_1")
COMPLETION = Heading(endpoint="completions", request_id="req_1a", created=5, model="m", fingerprint="fp_1")
CHAT_HEAD = (
    b'data: {"id":"chatcmpl-1a","object":"chat.completion.chunk","created":5,"model":"m",'
    b'"system_fingerprint":"fp_1"'
)
COMPLETION_HEAD = (
    b'data: {"id":"cmpl-1a","object":"text_completion","created":5,"model":"m","system_fingerprint":"fp_1"'
)


def test_chat_chunks() -> None:
    frames = Frames(CHAT, include_usage=False)
    null = b',"logprobs":null,"finish_reason":null}]}\n\n'
    assert (
        frames.first()
        == CHAT_HEAD + b',"choices":[{"index":0,"delta":{"role":"assistant","content":""}' + null
    )
    assert frames.text('a"\n') == CHAT_HEAD + b',"choices":[{"index":0,"delta":{"content":"a\\"\\n"}' + null
    assert frames.text("") == b""
    ending = b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\n'
    assert frames.finish("length") == CHAT_HEAD + ending


def test_completion_chunks() -> None:
    frames = Frames(COMPLETION, include_usage=False)
    null = b',"logprobs":null,"finish_reason":null}]}\n\n'
    assert frames.first() == b""
    assert frames.text("é") == COMPLETION_HEAD + ',"choices":[{"index":0,"text":"é"'.encode() + null
    ending = b',"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}\n\n'
    assert frames.finish("stop") == COMPLETION_HEAD + ending


def test_usage_is_null_on_every_chunk_but_its_own() -> None:
    for heading in (CHAT, COMPLETION):
        frames = Frames(heading, include_usage=True)
        chunks = [frame for frame in (frames.first(), frames.text("x"), frames.finish("stop")) if frame]
        assert all(_payload(chunk)["usage"] is None for chunk in chunks)
        last = _payload(frames.usage(USAGE))
        assert last["choices"] == []
        assert last["usage"] == USAGE_WIRE
        assert {chunk["id"] for chunk in map(_payload, chunks)} == {last["id"]}


def test_control_frames() -> None:
    assert KEEP_ALIVE == b": keep-alive\n\n"
    assert DONE == b"data: [DONE]\n\n"
    error = b'data: {"error":{"message":"m","type":"server_error","param":null,"code":"internal_error"}}\n\n'
    assert error_frame(fault("m").body()) == error


def test_the_receipt_carries_the_signed_entry_both_ways() -> None:
    frame = receipt_frame(SIGNED)
    assert frame.startswith(b"event: receipt\ndata: {")
    assert frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 3
    assert SignedEntry.from_dict(json.loads(frame.split(b"data: ")[1])) == SIGNED
    assert (
        SignedEntry.from_dict(json.loads(base64.b64decode(receipt_header(SIGNED), validate=True))) == SIGNED
    )


def test_whole_bodies() -> None:
    assert json.loads(whole_body(CHAT, "hi", "stop", USAGE)) == {
        "id": "chatcmpl-1a",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE_WIRE,
    }
    assert json.loads(whole_body(COMPLETION, "hi", "length", USAGE)) == {
        "id": "cmpl-1a",
        "object": "text_completion",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "text": "hi", "logprobs": None, "finish_reason": "length"}],
        "usage": USAGE_WIRE,
    }


def _payload(frame: bytes) -> dict[str, object]:
    payload: dict[str, object] = json.loads(frame.removeprefix(b"data: "))
    return payload
