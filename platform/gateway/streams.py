"""Streamed answers: frames through as they come, the receipt kept, settled before ``[DONE]`` leaves."""

from __future__ import annotations

import msgspec
import orjson
import structlog

from core.clock import clock
from core.errors import ApiError
from gateway.asgi import ClientGoneError
from gateway.dispatch import dispatch
from gateway.evidence import has_usage, stream_problems
from gateway.exchange import Answer, Exchange, upstream_lost, worker_error
from gateway.headers import EVENT_STREAM
from gateway.sse import KEEP_ALIVE, FrameFilter, FrameTooLargeError
from gateway.upstream import UpstreamError
from transparency.receipts import signed_entry_parse

_LOG = structlog.get_logger("gateway.streams")
_DONE = b"data: [DONE]\n\n"
_ERROR_BYTES_MAX = 1024 * 1024


async def stream_serve(exchange: Exchange) -> int:
    """Relay a stream; its status for the log.

    Before the first byte it raises ApiError, UpstreamError or ClientGoneError; later faults become an
    error frame.
    """
    writer = _Writer(exchange)
    try:
        answer = await dispatch(exchange, writer.keep_alive)
        try:
            if answer.status != 200:
                raise worker_error(answer.status, await answer.connection.read_all(_ERROR_BYTES_MAX))
            await _relay(exchange, writer, answer)
        finally:
            exchange.finish()
    except (ApiError, UpstreamError) as error:
        if exchange.client.gone:
            raise ClientGoneError from None
        if not writer.started:
            raise
        await writer.error(error if isinstance(error, ApiError) else upstream_lost(error))
    await exchange.send({"type": "http.response.body", "body": b""})
    return 200


class _Writer:
    """The client's event stream, begun by the first byte there is to send, keep-alives included."""

    __slots__ = ("_exchange", "_send", "started")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._send = exchange.send
        self.started = False

    async def write(self, data: bytes) -> None:
        """Send whole frames."""
        if not self.started:
            self.started = True
            headers = [*EVENT_STREAM, *self._exchange.headers, *self._exchange.worker_headers()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def keep_alive(self) -> None:
        """A comment, so that nobody in between takes silence for death."""
        await self.write(KEEP_ALIVE)

    async def error(self, error: ApiError) -> None:
        """An error as the last frame."""
        await self.write(b"data: %s\n\n" % orjson.dumps(error.body()))


async def _relay(exchange: Exchange, writer: _Writer, answer: Answer) -> None:
    flight, connection, frames = exchange.flight, answer.connection, FrameFilter()
    flight.first_token_at_ms = clock.now_ms()
    data = answer.first
    try:
        while data:
            out = frames.feed(data)
            if flight.ask.include_usage and has_usage(out):
                flight.usage_seen = out
            if frames.receipt is not None and not flight.ended:
                _settle(exchange, frames.receipt)
            if out:
                flight.relayed_frames += out.count(b"\n\n")
                await writer.write(out)
            while (more := await connection.read()) is None:
                if not frames.incomplete:
                    await writer.keep_alive()
            data = more
    except FrameTooLargeError:
        connection.abort("a frame is too large")
        raise UpstreamError("it sent a frame that is too large") from None
    except UpstreamError:
        if exchange.client.gone or not flight.ended:
            raise
        await writer.write(_DONE)  # the receipt was there: only the last frame is missing


def _settle(exchange: Exchange, receipt: bytes) -> None:
    flight = exchange.flight
    try:
        signed = signed_entry_parse(receipt)
    except msgspec.DecodeError as error:
        _LOG.error("receipt_unreadable", request_id=flight.request_id, error=str(error))
        return
    seen = stream_problems(flight.usage_seen, signed.entry) if flight.usage_seen else []
    flight.ended = True
    exchange.plane.settle(flight.settlement(signed, output_sha256=None, seen=seen))
