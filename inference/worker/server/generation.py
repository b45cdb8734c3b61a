"""One generation from the request to its receipt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from inference.engine.types import EventBatch, GenerationRequest, RequestRejected, TokenEvent
from inference.messages import SignedEntry
from inference.worker.logs import log_event
from inference.worker.prompts import duplicate, rejection_refusal, work_prepare
from inference.worker.protocol.calls import Endpoint
from inference.worker.protocol.heading import Heading
from inference.worker.protocol.parse import call_parse
from inference.worker.protocol.pieces import Piece
from inference.worker.protocol.wholes import embedding_body, generation_body
from inference.worker.refusal import RefusalError, fault
from inference.worker.runtime import Runtime
from inference.worker.server.asgi import Receive, Scope, Send, body_read, header
from inference.worker.server.callers import caller_of, request_id_of
from inference.worker.server.endings import ending_refusal
from inference.worker.server.flight import Flight
from inference.worker.server.record import flight_journal
from inference.worker.server.scopes import background, current_task, keep_alive, registered, watching
from inference.worker.server.writers import StreamWriter, WholeWriter, Writer
from inference.worker.times import now_ms

Events = AsyncGenerator[EventBatch, None]


async def generation_serve(
    runtime: Runtime, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve one request. Raises RefusalError while nothing was started and nothing was sent."""
    received_at_ms = now_ms()
    runtime.require_bearer(header(scope, b"authorization"))
    runtime.serving()
    request_id, caller = request_id_of(scope), caller_of(scope)
    call = call_parse(endpoint, await body_read(scope, receive))
    if call.model != runtime.release:
        message = f"The model {call.model!r} is not served here."
        raise RefusalError(404, message, param="model", code="model_not_found")
    service = runtime.serving()
    work = await work_prepare(call, request_id, service.engine, caller)
    flight = Flight(request_id, call, work.answers, received_at_ms, current_task())
    stream = _admit(runtime, request_id, work.requests)
    writer = _writer(send, flight, service.release_digest)
    with registered(runtime, flight), watching(receive, flight):
        last = await _relay(flight, stream, writer, runtime)
        signed = flight_journal(service, flight, runtime)
        if not flight.abandoned:
            await _conclude(flight, writer, last, signed)


def _admit(runtime: Runtime, request_id: str, requests: Sequence[GenerationRequest]) -> Events:
    """Give the requests to the engine, unless the id was seen before or the worker stopped taking work."""
    service = runtime.serving()
    if request_id in runtime.in_flight or request_id in service.journal:
        raise duplicate()
    try:
        return service.engine.stream(requests)
    except RequestRejected as error:
        if error.code == "engine_closed":
            runtime.fail("The engine stopped.")
        raise rejection_refusal(error) from None


async def _relay(flight: Flight, stream: Events, writer: Writer, runtime: Runtime) -> list[Piece] | None:
    """Pass pieces on until the last ones, which are returned; they leave together with the receipt. What has
    come meanwhile goes in one write.
    """
    try:
        with background(keep_alive(writer)) as keeper:
            async with aclosing(stream) as batches:
                async for batch in batches:
                    keeper.cancel()
                    pieces = [_take(flight, index, event, runtime) for index, event in batch]
                    if flight.complete or flight.failed:
                        flight.seal()
                        return pieces
                    flight.writing_since_s = time.perf_counter()
                    await writer.pieces(pieces)
                    flight.writing_since_s = None
        flight.seal("error")
    except asyncio.CancelledError:
        flight.seal("cancelled")
        current_task().uncancel()
    except RequestRejected as error:
        if not flight.begun:
            raise rejection_refusal(error) from None
        flight.seal("error")
    except Exception as error:
        flight.seal("error")
        log_event("generation_failed", level=logging.ERROR, error=error, request_id=flight.request_id)
    return None


def _take(flight: Flight, index: int, event: TokenEvent, runtime: Runtime) -> Piece:
    flight.record(index, event, runtime.metrics)
    return flight.answers[index].take(event)


async def _conclude(
    flight: Flight, writer: Writer, last: list[Piece] | None, signed: SignedEntry | None
) -> None:
    if signed is None:
        await writer.fail(fault("The worker could not record this request; it is not charged."), None)
    elif flight.failed or last is None:
        await writer.fail(ending_refusal(flight), signed)
    else:
        await writer.finish(last, flight.usage(), signed)


def _writer(send: Send, flight: Flight, release_digest: str) -> Writer:
    call = flight.call
    heading = Heading(
        endpoint=call.endpoint,
        request_id=flight.request_id,
        created=flight.received_at_ms // 1000,
        model=call.model,
        fingerprint=f"fp_{release_digest[:12]}",
    )
    if call.stream:
        return StreamWriter(send, heading, include_usage=call.include_usage)
    body = generation_body
    if call.endpoint == "embeddings":
        body = partial(embedding_body, as_base64=call.base64)
    return WholeWriter(send, heading, flight.answers, body)
