"""A small worker that speaks the contract over real sockets, signs real entries, and misbehaves on demand.

What it does is said by the first word of the prompt's last text (``say N``, ``slow N``) or, for every
request, by ``mode``: ok, refuse, drop, cut (mid-stream), dumb (no receipt), silent (no answer), fail (500),
greedy (counts more than it may), forged (bad signature), liar (usage differs from the entry).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.clock import clock
from core.ids import new_id
from core.secrets import derive_token
from core.signing import SigningKey
from inference.messages import JournalEntry, SignedEntry

RELEASE_DIGEST = "d" * 64


def _error(status: int, code: str, extra: bytes = b"") -> tuple[int, bytes, bytes]:
    fields = {"message": "no", "type": "invalid_request_error", "param": None, "code": code}
    return status, json.dumps({"error": fields}).encode(), extra


_REFUSALS = {
    "refuse": _error(503, "server_is_overloaded", b"retry-after-ms: 700\r\n"),
    "reject": _error(400, "context_length_exceeded"),
    "fail": _error(500, "internal_error"),
}


def new_key() -> SigningKey:
    """An Ed25519 key in memory."""
    private = Ed25519PrivateKey.generate()
    return SigningKey(private, base64.b64encode(private.public_key().public_bytes_raw()).decode())


@dataclass
class StubWorker:
    """One worker on its own port; state is read by tests from their thread."""

    secret: str
    model: str = "nano"
    worker_id: str = field(default_factory=lambda: new_id("wrk"))
    key: SigningKey = field(default_factory=new_key)
    mode: str = "ok"
    write_bytes: int = 0  # > 0: every write is cut into pieces of this size
    chunk_s: float = 0.0
    port: int = 0
    entries: dict[str, SignedEntry] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        """Listen; on the same port as before after ``stop``."""
        self.server = await asyncio.start_server(self._client, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a dead process: nothing listens, every connection is cut."""
        if self.server is not None:
            self.server.close()
            self.server = None
            for writer in list(self.writers):
                writer.transport.abort()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request_line, *lines = head.strip().split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("authorization") != f"Bearer {derive_token(self.secret, 'dispatch', self.worker_id)}":
            self._answer(writer, *_error(401, "invalid_dispatch_token"))
        elif method == "GET":
            entry = self.entries.get(path.removeprefix("/journal/"))
            self._answer(writer, 200 if entry else 404, json.dumps(entry.to_dict() if entry else {}).encode())
        else:
            self.headers.append(headers)
            self.bodies.append(json.loads(body))
            return await self._generate(path, headers["x-request-id"], self.bodies[-1], reader, writer)
        return True

    async def _generate(
        self, path: str, request_id: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: Any
    ) -> bool:
        mode = self.mode
        refusal = _REFUSALS.get(mode)
        if refusal is not None:
            self._answer(writer, *refusal)
            return True
        if mode in ("drop", "silent"):
            await asyncio.sleep(30 if mode == "silent" else 0)
            return False
        if "input" in body:
            return self._embed(path, request_id, body, writer)
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        words = str(prompt).split()
        count = int(words[1]) if len(words) > 1 and words[1].isdigit() else 3
        count = min(count, body["max_tokens"])
        delay_s = 0.03 if words and words[0] == "slow" else self.chunk_s
        work = _Work(request_id, path, body, count, delay_s, clock.now_ms())
        self.running += 1
        try:
            if body.get("stream"):
                return await self._stream(work, mode, reader, writer)
            return await self._whole(work, mode, writer)
        finally:
            self.running -= 1

    def _embed(self, path: str, request_id: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        work = _Work(request_id, path, body, 0, 0.0, clock.now_ms())
        signed = self._sign(work, 0, "stop", "ok")
        usage = {"prompt_tokens": work.prompt_tokens, "total_tokens": work.prompt_tokens}
        data = [
            {"object": "embedding", "index": index, "embedding": [0.6, 0.8]}
            for index in range(len(body["input"]))
        ]
        answer = {"object": "list", "data": data, "model": self.model, "usage": usage}
        header = b"x-tokenworks-receipt: %s\r\n" % base64.b64encode(_json(signed))
        self._answer(writer, 200, json.dumps(answer).encode(), header)
        return True

    async def _whole(self, work: _Work, mode: str, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(work.delay_s * work.count)
        n = work.body.get("n", 1)
        signed = self._sign(work, work.count * n, "stop", mode, text=work.text(work.count) * n)
        usage = work.usage(work.count * n + (1 if mode == "liar" else 0))
        text = work.text(work.count)
        choice = {"message": {"role": "assistant", "content": text}} if work.chat else {"text": text}
        body = {
            "id": work.chunk_id,
            "choices": [{"index": index, **choice, "finish_reason": "stop"} for index in range(n)],
            "usage": usage,
        }
        header = b"" if mode == "dumb" else b"x-tokenworks-receipt: %s\r\n" % base64.b64encode(_json(signed))
        self._answer(writer, 200, json.dumps(body).encode(), header)
        return True

    async def _stream(
        self, work: _Work, mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        gone = asyncio.ensure_future(reader.read(1))
        for index in range(work.count):
            if work.delay_s:
                await asyncio.wait([gone], timeout=work.delay_s)
            if gone.done() or writer.is_closing():
                self._sign(work, index, "cancelled", mode)
                return False
            if mode == "cut" and index == 2:
                self._chunk(writer, b'data: {"half')
                await writer.drain()
                writer.transport.abort()
                return False
            delta = {"delta": {"content": f"t{index} "}} if work.chat else {"text": f"t{index} "}
            frame: dict[str, Any] = {
                "id": work.chunk_id,
                "choices": [{"index": 0, **delta, "finish_reason": None}],
            }
            if work.include_usage:
                frame["usage"] = None
            self._chunk(writer, b"data: %s\n\n" % json.dumps(frame, separators=(",", ":")).encode())
            await writer.drain()
        gone.cancel()
        await asyncio.wait([gone])
        signed = self._sign(work, work.count, "stop", mode)
        tail = b""
        if work.include_usage:
            shown = work.usage(work.count + (1 if mode == "liar" else 0))
            frame = {"id": work.chunk_id, "choices": [], "usage": shown}
            tail = b"data: %s\n\n" % json.dumps(frame, separators=(",", ":")).encode()
        if mode != "dumb":
            tail += b"event: receipt\ndata: %s\n\n" % _json(signed)
        if mode != "lastcut":
            tail += b"data: [DONE]\n\n"
        self._chunk(writer, tail)
        if mode == "lastcut":
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _sign(
        self, work: _Work, completion: int, reason: Any, mode: str, *, text: str | None = None
    ) -> SignedEntry:
        shown = work.text(completion) if text is None else text
        entry = JournalEntry(
            seq=len(self.entries) + 1,
            prev_hash="0" * 64,
            worker_id=self.worker_id,
            request_id=work.request_id,
            model=self.model,
            release_digest=RELEASE_DIGEST,
            prompt_tokens=work.prompt_tokens,
            cached_tokens=0,
            completion_tokens=100_000 if mode == "greedy" else completion,
            finish_reason=reason,
            received_at_ms=work.received_at_ms,
            first_token_at_ms=clock.now_ms() if completion else None,
            finished_at_ms=clock.now_ms(),
            output_sha256=hashlib.sha256(shown.encode()).hexdigest(),
        )
        signer = new_key() if mode == "forged" else self.key
        signed = SignedEntry(entry, signer.sign(entry.signing_bytes()))
        self.entries[work.request_id] = signed
        return signed

    def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.write_bytes or len(data)
        for begin in range(0, len(data), size):
            piece = data[begin : begin + size]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _answer(self, writer: asyncio.StreamWriter, status: int, body: bytes, extra: bytes = b"") -> None:
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s"
            % (status, extra, len(body), body)
        )


@dataclass
class _Work:
    request_id: str
    path: str
    body: dict[str, Any]
    count: int
    delay_s: float
    received_at_ms: int
    prompt_tokens: int = 5

    @property
    def chat(self) -> bool:
        return "chat" in self.path

    @property
    def chunk_id(self) -> str:
        return ("chatcmpl-" if self.chat else "cmpl-") + self.request_id.partition("_")[2]

    @property
    def include_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def text(self, count: int) -> str:
        return "".join(f"t{index} " for index in range(count))

    def usage(self, completion: int) -> dict[str, int]:
        total = self.prompt_tokens + completion
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion, "total_tokens": total}


def _json(signed: SignedEntry) -> bytes:
    return json.dumps(signed.to_dict()).encode()


class LoopThread:
    """An event loop in a thread of its own, for servers that live beside the tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run ``work`` there and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self._cancel_all)
        time.sleep(0.05)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
