"""Server-sent events, byte for byte as the OpenAI SDKs expect them.

What is constant in a stream is encoded once, so that a chunk costs one JSON string and a concatenation.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from inference.messages import RECEIPT_EVENT, SignedEntry
from inference.worker.protocol.answers import call_id
from inference.worker.protocol.heading import CHUNK_OBJECT, Heading
from inference.worker.protocol.pieces import Piece
from inference.worker.protocol.tools.reader import CallDelta
from inference.worker.protocol.usage import Usage

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
_NO_LOGPROBS = b"null"


class Frames:
    """The events of one stream. ``include_usage`` adds the usage chunk, and ``usage: null`` to all others."""

    def __init__(self, heading: Heading, *, include_usage: bool) -> None:
        self._heading = heading
        self._chat = heading.endpoint == "chat"
        self._head = orjson.dumps(heading.fields(CHUNK_OBJECT[heading.endpoint]))[:-1]
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._opened: dict[int, bytes] = {}

    def first(self, index: int) -> bytes:
        """The chunk that opens a chat choice by naming its role; completions have none."""
        return self._chunk(index, b'"delta":{"role":"assistant","content":""}') if self._chat else b""

    def piece(self, piece: Piece) -> bytes:
        """The chunks of one piece: none where it adds nothing. Log probabilities go with the first."""
        index, deltas, scored, reason = piece  # of a named tuple: once a token
        if scored is None and reason is None and len(deltas) == 1 and isinstance(deltas[0], str):
            return self._chunk(index, self._text(deltas[0]))
        logprobs = _NO_LOGPROBS if piece.logprobs is None else orjson.dumps(piece.logprobs)
        if piece.logprobs is not None and not deltas:
            deltas = ("",)
        chunks = []
        for delta in deltas:
            body = self._call(index, delta) if isinstance(delta, CallDelta) else self._text(delta)
            chunks.append(self._chunk(index, body, logprobs))
            logprobs = _NO_LOGPROBS
        if piece.reason is not None:
            chunks.append(self._finish(index, piece.reason))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that carries the usage."""
        return b'data: %s,"choices":[],"usage":%s}\n\n' % (self._head, orjson.dumps(usage.to_wire()))

    def _text(self, text: str) -> bytes:
        return (b'"delta":{"content":%s}' if self._chat else b'"text":%s') % orjson.dumps(text)

    def _call(self, index: int, delta: CallDelta) -> bytes:
        call: dict[str, Any] = {"index": delta.index}
        function: dict[str, str] = {"arguments": delta.arguments}
        if delta.name is not None:
            call |= {"id": call_id(self._heading.request_id, index, delta.index), "type": "function"}
            function = {"name": delta.name} | function
        return b'"delta":{"tool_calls":[%s]}' % orjson.dumps(call | {"function": function})

    def _finish(self, index: int, reason: str) -> bytes:
        body = b'"delta":{}' if self._chat else b'"text":""'
        return self._chunk(index, body, reason=b'"%s"' % reason.encode())

    def _chunk(
        self, index: int, body: bytes, logprobs: bytes = _NO_LOGPROBS, *, reason: bytes = b"null"
    ) -> bytes:
        opened = self._opened.get(index)
        if opened is None:
            opened = self._opened[index] = b'data: %s,"choices":[{"index":%d,' % (self._head, index)
        return b'%s%s,"logprobs":%s,"finish_reason":%s}]%s' % (opened, body, logprobs, reason, self._tail)


def error_frame(body: bytes) -> bytes:
    """An error after the status line has left: the four-field body as an event."""
    return b"data: %s\n\n" % body


def receipt_frame(signed: SignedEntry) -> bytes:
    """The worker's signed entry, for the gateway alone, which takes it out of the stream."""
    return b"event: %s\ndata: %s\n\n" % (RECEIPT_EVENT.encode(), orjson.dumps(signed.to_dict()))


def receipt_header(signed: SignedEntry) -> bytes:
    """The same for a response that is not streamed: base64 of the JSON."""
    return base64.b64encode(orjson.dumps(signed.to_dict()))
