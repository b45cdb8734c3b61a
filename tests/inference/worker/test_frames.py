"""The bytes of streams and bodies, exactly."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from inference.engine.types import FinishReason, TokenEvent, TokenLogprob
from inference.messages import GENESIS_HASH, JournalEntry, SignedEntry
from inference.worker.protocol.answers import Answer
from inference.worker.protocol.frames import (
    DONE,
    KEEP_ALIVE,
    Frames,
    error_frame,
    receipt_frame,
    receipt_header,
)
from inference.worker.protocol.heading import Heading
from inference.worker.protocol.logprobs import ChatLogprobs, CompletionLogprobs
from inference.worker.protocol.pieces import Piece
from inference.worker.protocol.tools.reader import CallDelta
from inference.worker.protocol.usage import Usage
from inference.worker.protocol.wholes import embedding_body, generation_body
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
EMBEDDING = Heading(endpoint="embeddings", request_id="req_1a", created=5, model="m", fingerprint="fp_1")
COMPLETION = Heading(endpoint="completions", request_id="req_1a", created=5, model="m", fingerprint="fp_1")
CHAT_HEAD = (
    b'data: {"id":"chatcmpl-1a","object":"chat.completion.chunk","created":5,"model":"m",'
    b'"system_fingerprint":"fp_1"'
)
COMPLETION_HEAD = (
    b'data: {"id":"cmpl-1a","object":"text_completion","created":5,"model":"m","system_fingerprint":"fp_1"'
)


def text(content: str, index: int = 0) -> Piece:
    return Piece(index, (content,))


def test_chat_chunks() -> None:
    frames = Frames(CHAT, include_usage=False)
    null = b',"logprobs":null,"finish_reason":null}]}\n\n'
    opened = CHAT_HEAD + b',"choices":[{"index":0,'
    assert frames.first(0) == opened + b'"delta":{"role":"assistant","content":""}' + null
    assert frames.piece(text('a"\n')) == opened + b'"delta":{"content":"a\\"\\n"}' + null
    assert frames.piece(Piece(0)) == b""
    ending = b'"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\n'
    assert frames.piece(Piece(0, reason="length")) == opened + ending
    assert frames.piece(Piece(0, ("a",), reason="length")) == frames.piece(text("a")) + opened + ending


def test_completion_chunks() -> None:
    frames = Frames(COMPLETION, include_usage=False)
    null = b',"logprobs":null,"finish_reason":null}]}\n\n'
    assert frames.first(0) == b""
    assert frames.piece(text("é", 3)) == (
        COMPLETION_HEAD + ',"choices":[{"index":3,"text":"é"'.encode() + null
    )
    ending = b',"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}\n\n'
    assert frames.piece(Piece(0, reason="stop")) == COMPLETION_HEAD + ending


def test_calls_are_named_once_and_their_arguments_follow() -> None:
    frames = Frames(CHAT, include_usage=False)
    deltas = (CallDelta(0, "add", ""), CallDelta(0, None, '{"a"'), CallDelta(0, None, ":1}"))
    chunks = [json.loads(one[6:]) for one in frames.piece(Piece(1, deltas)).split(b"\n\n") if one]
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert calls[0].pop("id").startswith("call_")
    assert calls == [
        {"index": 0, "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]
    assert {chunk["choices"][0]["index"] for chunk in chunks} == {1}


def test_log_probabilities_leave_with_their_text_or_alone() -> None:
    frames = Frames(CHAT, include_usage=False)
    scored: dict[str, Any] = {"content": [], "refusal": None}
    assert _payload(frames.piece(Piece(0, ("a",), scored)))["choices"] == [
        {"index": 0, "delta": {"content": "a"}, "logprobs": scored, "finish_reason": None}
    ]
    assert _payload(frames.piece(Piece(0, (), scored)))["choices"] == [
        {"index": 0, "delta": {"content": ""}, "logprobs": scored, "finish_reason": None}
    ]


def test_usage_is_null_on_every_chunk_but_its_own() -> None:
    for heading in (CHAT, COMPLETION):
        frames = Frames(heading, include_usage=True)
        pieces = map(frames.piece, (text("x"), Piece(0, reason="stop")))
        chunks = [frame for frame in (frames.first(0), *pieces) if frame]
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


class Names:
    """Token i is the byte i."""

    def token_name(self, token_id: int) -> tuple[str, bytes]:
        return chr(token_id), bytes([token_id])


def event(shown: str, reason: FinishReason | None = None, **more: object) -> TokenEvent:
    return TokenEvent("req_1", shown, (1,), reason, 7, 2, 3, **more)  # type: ignore[arg-type]  # more of its fields


def answer_of(content: str, reason: FinishReason, index: int = 0) -> Answer:
    answer = Answer(index)
    answer.take(event(content[:1]))
    answer.take(event(content[1:], reason))
    return answer


def test_whole_bodies() -> None:
    assert json.loads(generation_body(CHAT, [answer_of("hi", "stop")], USAGE)) == {
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
    answers = [answer_of("hi", "length"), answer_of("ho", "stop", index=1)]
    assert json.loads(generation_body(COMPLETION, answers, USAGE)) == {
        "id": "cmpl-1a",
        "object": "text_completion",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "text": "hi", "logprobs": None, "finish_reason": "length"},
            {"index": 1, "text": "ho", "logprobs": None, "finish_reason": "stop"},
        ],
        "usage": USAGE_WIRE,
    }


def test_embeddings_have_length_one_in_both_spellings() -> None:
    answer = Answer(0)
    answer.take(event("", "stop", embedding=(3.0, 0.0, -4.0)))
    plain = json.loads(embedding_body(EMBEDDING, [answer], USAGE, as_base64=False))
    assert plain["data"] == [{"object": "embedding", "index": 0, "embedding": plain["data"][0]["embedding"]}]
    assert plain["data"][0]["embedding"] == pytest.approx([0.6, 0.0, -0.8])
    assert (plain["object"], plain["model"]) == ("list", "m")
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    packed = json.loads(embedding_body(EMBEDDING, [answer], USAGE, as_base64=True))
    raw = base64.b64decode(packed["data"][0]["embedding"], validate=True)
    assert struct.unpack("<3f", raw) == pytest.approx((0.6, 0.0, -0.8))


def test_chat_log_probabilities() -> None:
    one = TokenLogprob(65, -0.5, ((66, -0.25), (65, float("-inf"))))
    assert ChatLogprobs(Names()).wire([one]) == {
        "content": [
            {
                "token": "A",
                "logprob": -0.5,
                "bytes": [65],
                "top_logprobs": [
                    {"token": "B", "logprob": -0.25, "bytes": [66]},
                    {"token": "A", "logprob": -9999.0, "bytes": [65]},
                ],
            }
        ],
        "refusal": None,
    }


def test_completion_log_probabilities_count_on_through_prompt_and_text() -> None:
    answer = Answer(0, logprobs=CompletionLogprobs(Names()), echo="é!", echo_tokens=(0xC3, 0xA9, 33))
    prompt = (None, TokenLogprob(0xA9, -1.0, ((0xA9, -1.0),)), TokenLogprob(33, -2.0, ((34, -0.5),)))
    answer.take(event("A", prompt_logprobs=prompt, logprobs=(TokenLogprob(65, -3.0),)))
    answer.take(event("B", "stop", logprobs=(TokenLogprob(66, -4.0, ((66, -4.0),)),)))
    assert answer.content() == "é!AB"
    assert answer.logprobs() == {
        "tokens": ["Ã", "©", "!", "A", "B"],
        "token_logprobs": [None, -1.0, -2.0, -3.0, -4.0],
        "top_logprobs": [None, {"©": -1.0}, {'"': -0.5, "!": -2.0}, {"A": -3.0}, {"B": -4.0}],
        "text_offset": [0, 0, 1, 2, 3],
    }


def test_a_prompt_alone_can_be_scored() -> None:
    """What was generated for its sake is not shown, and the end is that of a text without room."""
    answer = Answer(0, logprobs=CompletionLogprobs(Names()), echo="AB", echo_tokens=(65, 66), silent=True)
    prompt = (None, TokenLogprob(66, -1.0))
    answer.take(event("C", "stop", prompt_logprobs=prompt, logprobs=(TokenLogprob(67, -3.0),)))
    assert (answer.content(), answer.reason) == ("AB", "length")
    scored = answer.logprobs()
    assert scored is not None
    assert scored["token_logprobs"] == [None, -1.0]


def _payload(frame: bytes) -> dict[str, object]:
    payload: dict[str, object] = json.loads(frame.removeprefix(b"data: "))
    return payload


def test_usage_names_the_routing_profile_of_those_who_asked_for_one() -> None:
    assert "routing" not in USAGE.to_wire()
    assert replace(USAGE, routing="rp_1").to_wire()["routing"] == "rp_1"
