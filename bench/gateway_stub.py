"""The upstream of the gateway bench: a worker that answers at once, with really signed entries.

``python -m bench.gateway_stub PORT WORKER_ID KEY_FILE``. 20 tokens an answer; a stream sends each in its own
write, ``SPACING_S`` apart, as a decoding worker would.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from pathlib import Path
from typing import cast

import httptools
import orjson
import uvloop

from core.clock import clock
from core.signing import SigningKey, signing_key_load
from inference.messages import JournalEntry, SignedEntry
from transparency.receipts import entry_signing_bytes

TOKENS = 20
SPACING_S = 0.002
PROMPT_TOKENS = 80
MODEL = "bench"
RELEASE_DIGEST = "d" * 64
_TEXT = "hello " * TOKENS
_SHA = hashlib.sha256(_TEXT.encode()).hexdigest()
WHOLE = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
        ],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": TOKENS,
            "total_tokens": PROMPT_TOKENS + TOKENS,
        },
    }
)
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":"hello "},"finish_reason":null}]}\n\n'
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Stub(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, worker_id: str, key: SigningKey) -> None:
        self._worker_id, self._key = worker_id, key
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._request_id, self._stream = "req_direct", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._request_id = value.decode()

    def on_body(self, body: bytes) -> None:
        self._stream = b'"stream":true' in body

    def on_message_complete(self) -> None:
        if self._stream:
            self._transport.write(_STREAM_HEAD)
            self._chunk(TOKENS)
            return
        receipt = base64.b64encode(self._signed())
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-tokenworks-receipt: %s\r\n" % receipt
        self._transport.write(head + b"content-length: %d\r\n\r\n" % len(WHOLE) + WHOLE)

    def _chunk(self, left: int) -> None:
        if left:
            self._write(_CHUNK)
            self._loop.call_later(SPACING_S, self._chunk, left - 1)
            return
        self._write(b"event: receipt\ndata: %s\n\ndata: [DONE]\n\n" % self._signed())
        self._transport.write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _signed(self) -> bytes:
        now = clock.now_ms()
        entry = JournalEntry(
            seq=1, prev_hash="0" * 64, worker_id=self._worker_id, request_id=self._request_id, model=MODEL,
            release_digest=RELEASE_DIGEST, prompt_tokens=PROMPT_TOKENS, cached_tokens=0,
            completion_tokens=TOKENS, finish_reason="stop", received_at_ms=now, first_token_at_ms=now,
            finished_at_ms=now, output_sha256=_SHA,
        )  # fmt: skip
        return orjson.dumps(SignedEntry(entry, self._key.sign(entry_signing_bytes(entry))))


async def main() -> None:
    """Serve until killed."""
    port, worker_id, key_file = sys.argv[1:4]
    key = signing_key_load(Path(key_file))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(worker_id, key), "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
