"""HTTP/1.1 to a worker on a raw protocol: one request at a time, kept alive, with backpressure both ways."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

_HIGH_WATER = 256 * 1024
_HEAD_BYTES_MAX = 64 * 1024


class UpstreamError(Exception):
    """The worker's answer will not come, or not to its end. ``timed_out``: it may still be working."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class UpstreamConnection(asyncio.Protocol):
    """``request``, then ``head`` once, then ``read`` until it returns no bytes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._headed = False
        self._done = True
        self._tick = False
        self._kept = False
        self.reused = False
        self.headers: dict[bytes, bytes] = {}
        self.status = 0
        self.active_at = self._loop.time()
        self.deadline = 0.0
        self.quiet_s = 0.0
        self._ticked_at = 0.0
        self.response_began = False

    # transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._error is None:
            self._error = UpstreamError("the worker closed the connection")
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._done:  # or the next request would be answered by this
            self.abort("the worker spoke unasked")
            return
        self.active_at = self._loop.time()
        self.response_began = True
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort("the worker's answer is not HTTP")
        if self._head_size > _HEAD_BYTES_MAX:
            self.abort("the worker's headers have no end")
        self._wake()

    # parser callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._headed = self.status >= 200
        if self._headed:
            self._head_size = 0
        self._kept = self._parser.should_keep_alive()  # the parser forgets with the message's end

    def on_body(self, body: bytes) -> None:
        self._head_size = 0
        self._parts.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._headed:
            self._done = True

    # one exchange

    def request(self, data: bytes, *, timeout_s: float, quiet_s: float) -> None:
        """Send a whole request. ``timeout_s`` bounds the time to its last byte, ``quiet_s`` each silence."""
        self._parts.clear()
        self._size = self._head_size = 0
        self.headers = {}
        self._headed = self._done = self._tick = self.response_began = False
        self.active_at = self._loop.time()
        self.deadline = self.active_at + timeout_s
        self.quiet_s = quiet_s
        if self._transport is None or self._error is not None:
            raise self._error or UpstreamError("not connected")
        self._transport.write(data)

    async def head(self) -> int | None:
        """The status; None when a tick came first. Raises UpstreamError."""
        while not self._headed:
            if self._error is not None:
                raise self._error
            if self._tick:
                self._tick = False
                return None
            await self._wait()
        return self.status

    async def read(self) -> bytes | None:
        """More of the body, b"" at its end, None when a tick came first. Raises UpstreamError."""
        while not self._parts:
            if self._done:
                return b""
            if self._error is not None:
                raise self._error
            if self._tick:
                self._tick = False
                return None
            await self._wait()
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError, also beyond ``limit`` bytes."""
        parts, size = [], 0
        while (data := await self.read()) != b"":
            if data is not None:
                size += len(data)
                parts.append(data)
            if size > limit:
                self.abort()
                raise UpstreamError("the worker's answer is too large")
        return b"".join(parts)

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self._done and self._error is None and self._headed and self._kept

    @property
    def usable(self) -> bool:
        """Whether the connection is up, as far as is known."""
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    def tick(self, now: float, interval_s: float) -> None:
        """Called about once a second: time out, or tell a waiting reader that nothing came for a while."""
        if now > self.deadline or now - self.active_at > self.quiet_s:
            self.abort("the worker took too long", timed_out=True)
        elif now - max(self.active_at, self._ticked_at) >= interval_s:
            self._ticked_at = now
            self._tick = True
            self._wake()

    def abort(self, why: str = "given up", *, timed_out: bool = False) -> None:
        """Close at once: the worker sees its client gone, a waiting reader gets UpstreamError."""
        if self._error is None:
            self._error = UpstreamError(why, timed_out=timed_out)
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
