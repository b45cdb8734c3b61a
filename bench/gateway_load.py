"""The client of the gateway bench: a closed loop of C connections for some seconds, in its own process.

``python -m bench.gateway_load PORT KEY CONCURRENCY SECONDS STREAM(0|1)``; prints one JSON object:
count, failed, seconds, p50_ms and p99_ms to the last byte, first_p50_ms to the first byte of the body.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import httptools
import orjson
import uvloop

PROMPT = "Explain multi-head latent attention in two sentences. " * 8
SYSTEM = "You are a helpful assistant. " * 8


class Loader(asyncio.Protocol):
    """Sends its request again as soon as the answer is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request, self._until = request, until
        self._parser = httptools.HttpResponseParser(self)
        self.done = asyncio.get_running_loop().create_future()
        self.times_s: list[float] = []
        self.first_s: list[float] = []
        self.failed = 0
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.failed += 1
            self.done.set_result(None)

    def _send(self) -> None:
        self._began, self._first = time.perf_counter(), 0.0
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, _body: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter() - self._began

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self._parser.get_status_code() == 200:
            self.times_s.append(now - self._began)
            self.first_s.append(self._first)
        else:
            self.failed += 1
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()


def request_bytes(key: str, *, stream: bool) -> bytes:
    """One whole HTTP request."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    body = orjson.dumps(
        {"model": "bench", "messages": messages, "max_tokens": 64, "temperature": 0.7, "stream": stream}
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def at(values: list[float], fraction: float) -> float:
    """The value at a fraction of the sorted list, in milliseconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * fraction))] * 1000 if values else 0.0


async def main() -> None:
    """Load, then print."""
    port, key, concurrency, seconds, stream = sys.argv[1:6]
    request = request_bytes(key, stream=stream == "1")
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    loaders = []
    for _ in range(int(concurrency)):
        _, loader = await loop.create_connection(
            lambda: Loader(request, began + float(seconds)), "127.0.0.1", int(port)
        )
        loaders.append(loader)
    await asyncio.gather(*(loader.done for loader in loaders))
    times = [value for loader in loaders for value in loader.times_s]
    firsts = [value for loader in loaders for value in loader.first_s]
    figures = {
        "count": len(times),
        "failed": sum(loader.failed for loader in loaders),
        "seconds": time.perf_counter() - began,
        "p50_ms": at(times, 0.5),
        "p99_ms": at(times, 0.99),
        "first_p50_ms": at(firsts, 0.5),
    }
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")


if __name__ == "__main__":
    uvloop.run(main())
