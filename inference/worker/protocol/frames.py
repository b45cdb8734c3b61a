"""Response bodies and server-sent events, byte for byte as the OpenAI SDKs expect them.

What is constant in a stream is encoded once, so that a chunk costs one JSON string and a concatenation.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from inference.messages import RECEIPT_EVENT, SignedEntry
from inference.worker.protocol.calls import Endpoint
from inference.worker.protocol.usage import Usage

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_ID_PREFIX: dict[Endpoint, str] = {"chat": "chatcmpl-", "completions": "cmpl-"}
_CHUNK_OBJECT: dict[Endpoint, str] = {"chat": "chat.completion.chunk", "completions": "text_completion"}
_WHOLE_OBJECT: dict[Endpoint, str] = {"chat": "chat.completion", "completions": "text_completion"}


@dataclass(frozen=True, slots=True)
class Heading:
    """What every chunk and the whole response of one request share. ``created`` is in seconds."""

    endpoint: Endpoint
    request_id: str
    created: int
    model: str
    fingerprint: str

    def fields(self, object_name: str) -> dict[str, Any]:
        """The leading fields, in the order OpenAI sends them."""
        return {
            "id": _ID_PREFIX[self.endpoint] + self.request_id.partition("_")[2],
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Frames:
    """The events of one stream. ``include_usage`` adds the usage chunk, and ``usage: null`` to all others."""

    def __init__(self, heading: Heading, *, include_usage: bool) -> None:
        self._chat = heading.endpoint == "chat"
        self._head = orjson.dumps(heading.fields(_CHUNK_OBJECT[heading.endpoint]))[:-1]
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        opened = b'data: %s,"choices":[{"index":0,' % self._head
        self._before = opened + (b'"delta":{"content":' if self._chat else b'"text":')
        closing = b'},"logprobs":null' if self._chat else b',"logprobs":null'
        self._after = closing + b',"finish_reason":null}]' + self._tail
        self._opened = opened

    def first(self) -> bytes:
        """The chunk that opens a chat answer by naming its role; completions have none."""
        if not self._chat:
            return b""
        delta = b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return self._opened + delta + self._tail

    def text(self, text: str) -> bytes:
        """A chunk with more text; none for no text."""
        return self._before + orjson.dumps(text) + self._after if text else b""

    def finish(self, reason: str) -> bytes:
        """The chunk with the finish reason: ``stop`` or ``length``."""
        delta = b'"delta":{}' if self._chat else b'"text":""'
        return b'%s%s,"logprobs":null,"finish_reason":"%s"}]%s' % (
            self._opened,
            delta,
            reason.encode(),
            self._tail,
        )

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that carries the usage."""
        return b'data: %s,"choices":[],"usage":%s}\n\n' % (self._head, orjson.dumps(usage.to_wire()))


def error_frame(body: bytes) -> bytes:
    """An error after the status line has left: the four-field body as an event."""
    return b"data: %s\n\n" % body


def receipt_frame(signed: SignedEntry) -> bytes:
    """The worker's signed entry, for the gateway alone, which takes it out of the stream."""
    return b"event: %s\ndata: %s\n\n" % (RECEIPT_EVENT.encode(), orjson.dumps(signed.to_dict()))


def receipt_header(signed: SignedEntry) -> bytes:
    """The same for a response that is not streamed: base64 of the JSON."""
    return base64.b64encode(orjson.dumps(signed.to_dict()))


def whole_body(heading: Heading, text: str, reason: str, usage: Usage) -> bytes:
    """The body of a response that is not streamed."""
    answer: dict[str, Any] = {"index": 0}
    if heading.endpoint == "chat":
        answer["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        answer["text"] = text
    answer |= {"logprobs": None, "finish_reason": reason}
    fields = heading.fields(_WHOLE_OBJECT[heading.endpoint])
    return orjson.dumps(fields | {"choices": [answer], "usage": usage.to_wire()})
