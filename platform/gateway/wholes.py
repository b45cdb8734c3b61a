"""Answers that are not streamed: read whole, settled, then sent."""

from __future__ import annotations

import base64
import binascii

import msgspec
import structlog

from core.clock import clock
from gateway.asgi import ClientGoneError, respond
from gateway.dispatch import dispatch
from gateway.evidence import whole_problems
from gateway.exchange import Exchange, worker_error
from gateway.headers import JSON_TYPE
from gateway.upstream import UpstreamError
from inference.messages import HEADER_RECEIPT
from transparency.receipts import signed_entry_parse

_LOG = structlog.get_logger("gateway.wholes")
_BODY_BYTES_MAX = 64 * 1024 * 1024


async def whole_serve(exchange: Exchange) -> int:
    """Relay an answer; its status for the log. Raises ApiError, UpstreamError or ClientGoneError."""
    answer = await dispatch(exchange, _nothing)
    try:
        content = await answer.connection.read_all(_BODY_BYTES_MAX)
        receipt = answer.connection.headers.get(HEADER_RECEIPT.encode(), b"")
    except UpstreamError:
        if exchange.client.gone:
            raise ClientGoneError from None
        raise
    finally:
        exchange.finish()
    if answer.status != 200:
        raise worker_error(answer.status, content)
    exchange.flight.first_token_at_ms = clock.now_ms()
    _settle(exchange, content, receipt)
    headers = [JSON_TYPE, *exchange.headers, *exchange.worker_headers()]
    await respond(exchange.send, 200, content, headers)
    return 200


def _settle(exchange: Exchange, content: bytes, receipt: bytes) -> None:
    flight = exchange.flight
    try:
        signed = signed_entry_parse(base64.b64decode(receipt, validate=True))
    except (binascii.Error, msgspec.DecodeError) as error:
        _LOG.error("receipt_unreadable", request_id=flight.request_id, error=str(error))
        return
    problems, output_sha256 = whole_problems(content, signed.entry)
    flight.relayed_frames = 1
    flight.ended = True
    exchange.plane.settle(flight.settlement(signed, output_sha256=output_sha256, seen=problems))


async def _nothing() -> None:
    """A client that awaits a whole answer can be told nothing before it is there."""
